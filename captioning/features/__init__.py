"""Compute, store and read the features that an encoder makes of images."""
