"""What familiar pictures look like is learned from features that are large if there are many pictures."""

import tracemalloc

import numpy as np

from training.bundling.familiar import project


def test_features_are_copied_once_to_find_their_directions() -> None:
    random = np.random.default_rng(0)
    targets = np.arange(4_000) % 3
    features = (random.normal(0, 1, (4_000, 256)) + random.normal(0, 2, (3, 256))[targets]).astype(np.float32)
    tracemalloc.start()
    try:
        projection, centres = project(features, targets, classes=3)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (projection.shape, centres.shape) == ((256, 64), (3, 64))
    places = features / np.linalg.norm(features, axis=1, keepdims=True) @ projection
    nearest = ((places[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == targets).mean() > 0.99
    assert most < 2 * 8 * features.size
