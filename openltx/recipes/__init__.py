"""Named runs and their settings, in Python: ``openltx train vae NAME``."""
