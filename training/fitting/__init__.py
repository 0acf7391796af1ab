"""Train a network: batches, augmentation, optimizers, checkpoints and the loop itself."""
