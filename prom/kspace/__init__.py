"""K-space, what can be switched on in it, and how it is made of an image."""
