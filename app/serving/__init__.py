"""Classify encoded pictures: admission, the batcher, a live model, and the catalogue of live models."""
