"""Frozen image and text encoders, one registry of them, and the trainable projection heads."""
