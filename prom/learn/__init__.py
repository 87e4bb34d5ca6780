"""Algorithm 1 and its recipes, discrete polishing, and a mask as a layer."""
