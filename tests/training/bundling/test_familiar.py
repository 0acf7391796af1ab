"""What familiar pictures look like is learned from features that are large if there are many pictures."""

import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np

from app.contract.bundle import FEATURES
from training.bundling.familiar import learn_trust, project


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


def test_a_network_with_very_many_features_is_passed_over_before_any_work() -> None:
    """Work and memory grow with the square of the features: 36,864 of them would take 11 GB, and hours."""

    class Engine:
        def outputs(self, batch: Any) -> Any:
            raise AssertionError("no picture is to be looked at")

    said: list[str] = []
    last = SimpleNamespace(get_weights=lambda: [np.zeros((36_864, 10), np.float32), np.zeros(10, np.float32)])
    unused: Any = SimpleNamespace(targets=np.zeros(4, np.int64))
    network, signature, reporter, engine = (
        SimpleNamespace(layers=[last]),
        SimpleNamespace(other_outputs=[SimpleNamespace(name=FEATURES)]),
        SimpleNamespace(say=said.append),
        Engine(),
    )
    arguments: list[Any] = [network, engine, signature, unused, unused]
    options: dict[str, Any] = {"known": None, "keep_thumbnails": False, "seed": 0, "reporter": reporter}
    assert learn_trust(*arguments, **options) is None
    (sentence,) = said
    assert sentence.endswith("the statistics of its 36,864 features take more than 1,500,000 bytes")
