"""Measuring: reconstruction quality of the autoencoder, and whether a generated video shows what its prompt says."""
