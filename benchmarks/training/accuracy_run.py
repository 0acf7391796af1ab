"""Train once on MNIST and print JSON: `python -m benchmarks.training.accuracy_run NAME SEED MNIST`.

It is a process of its own, so that no training reuses another's threads, kernels or memory.
"""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.training.accuracy import TO, TUTORIAL
from benchmarks.training.tutorial import tutorial_network
from training.data.dataset import Split
from training.data.sources import open_data
from training.data.split import assign_splits
from training.data.tensors import Tensors, load_tensors
from training.fitting.fit import fit
from training.model.network import build_network
from training.model.presets import preset_named
from training.model.tta import average_shifts
from training.progress import Reporter
from training.tensorflow import keras

_BATCH = 500
_HELD_OUT = 1 / 12


def run_tutorial(seed: int, mnist: Path, *, goal: float | None) -> dict[str, Any]:
    """Train the tutorial's network as its script does, with plain Keras: batches of 32, 10 epochs, [0, 1] beforehand.

    With a `goal`, a twelfth of the training pictures is held out, and training stops after the epoch whose accuracy on
    them reaches it; the time of this evaluation is excluded.
    """
    data = np.load(mnist)
    images, targets = data["x_train"].astype("float32")[..., None] / 255, data["y_train"]
    unseen, wanted = data["x_test"].astype("float32")[..., None] / 255, data["y_test"]
    if goal is not None:
        order = np.random.default_rng(seed).permutation(len(images))
        held_out, rest = np.split(order, [round(_HELD_OUT * len(images))])
        unseen, wanted, images, targets = images[held_out], targets[held_out], images[rest], targets[rest]
    keras.utils.set_random_seed(seed)
    network = tutorial_network((28, 28, 1), 10)

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.epochs: list[float] = []

        def on_train_begin(self, logs: Any = None) -> None:
            self.began = time.monotonic()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.epochs.append(time.monotonic() - self.began)
            if goal is not None and _accuracy(network, unseen, wanted) >= goal:
                network.stop_training = True
            self.began = time.monotonic()

    clock = Clock()
    cpu = time.process_time()
    network.fit(images, targets, batch_size=32, epochs=10, verbose=0, callbacks=[clock])
    return {
        "accuracy": _accuracy(network, unseen, wanted),
        "parameters": network.count_params(),
        "seconds": sum(clock.epochs),
        "cpu_seconds": time.process_time() - cpu,
        "epochs": clock.epochs,
    }


def run_preset(name: str, seed: int, mnist: Path, *, goal: float | None) -> dict[str, Any]:
    """Train as `python -m training fit` does, on the split that it would make; with a `goal`, a twelfth is held out,
    and the accuracy is on that part."""
    preset = preset_named(name)
    dataset = open_data(str(mnist))
    share = preset.recipe.validation if goal is None else _HELD_OUT
    assignment = assign_splits(dataset, seed=seed, validation=share, test=0.0)

    def load(split: Split) -> Tensors:
        return load_tensors(assignment.pictures(split), preset.preprocessing, dataset.labels, on_bad_image="fail")

    train, validation = load("train"), load("validation") if share else None
    unseen = load("test") if goal is None or validation is None else validation
    keras.utils.set_random_seed(seed)
    classes = len(dataset.labels)
    network = build_network(preset.layers, shape=preset.preprocessing.shape, classes=classes)
    cpu = time.process_time()
    watched = validation if goal is None else None
    result = fit(network, preset.recipe, train, watched, classes=classes, seed=seed, reporter=Reporter())
    cpu = time.process_time() - cpu
    if preset.views == "shifted":
        network = average_shifts(network)
    return {
        "accuracy": _accuracy(network, unseen.images, unseen.targets),
        "parameters": result.parameters,
        "seconds": result.seconds,
        "cpu_seconds": cpu,
        "epochs": [epoch.seconds for epoch in result.epochs],
    }


def _accuracy(network: Any, images: Any, targets: Any) -> float:
    starts = range(0, len(images), _BATCH)
    found = [network(images[start : start + _BATCH], training=False).numpy().argmax(axis=1) for start in starts]
    return float((np.concatenate(found) == targets).mean())


if __name__ == "__main__":
    name, seed, mnist = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    trained, _, asked = name.partition(TO)
    goal = float(asked) / 100 if asked else None
    run = run_tutorial if trained == TUTORIAL else partial(run_preset, trained)
    found = run(seed, mnist, goal=goal)
    print(json.dumps({"name": name, "seed": seed, **found}))
