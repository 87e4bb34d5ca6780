"""How good a mask is: scores of images, and of what a network segments in them."""
