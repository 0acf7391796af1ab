"""From bytes to a classification: admission, the batcher, one live model, and the catalogue of those that are live."""
