"""From samples to an image."""
