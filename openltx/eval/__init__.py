"""Measuring: what the autoencoder keeps and how it uses its latents; whether videos show what was asked."""
