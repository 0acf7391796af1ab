"""One training on MNIST for `benchmarks.accuracy`: `python -m benchmarks.accuracy_run NAME SEED MNIST` prints it as JSON.

A process of its own, so that no training finds another's threads, kernels or memory warm.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from app.engines.tensorflow import import_tensorflow
from benchmarks.accuracy import TUTORIAL
from training.calibration.temperature import calibrate
from training.fit import fit
from training.network import build_network
from training.presets import preset_named
from training.progress import Reporter
from training.sources import open_data
from training.split import assign_splits
from training.tensors import load_tensors
from training.views import average_shifts

_BATCH = 500


def run_tutorial(seed: int, mnist: Path) -> dict[str, Any]:
    """Train the tutorial's network as its script does, with plain Keras: batches of 32, 10 epochs, [0, 1] beforehand."""
    import_tensorflow()
    import keras
    from keras import layers

    data = np.load(mnist)
    images = data["x_train"].astype("float32")[..., None] / 255
    unseen = data["x_test"].astype("float32")[..., None] / 255
    keras.utils.set_random_seed(seed)
    network = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    ends: list[float] = []
    epoch_ends = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: ends.append(time.monotonic()))
    started, cpu = time.monotonic(), time.process_time()
    network.fit(images, data["y_train"], batch_size=32, epochs=10, verbose=0, callbacks=[epoch_ends])
    seconds, cpu = time.monotonic() - started, time.process_time() - cpu
    return {
        "accuracy": _accuracy(network, unseen, data["y_test"]),
        "parameters": network.count_params(),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "epochs": [end - begin for begin, end in zip([started, *ends], ends, strict=False)],
    }


def run_preset(name: str, seed: int, mnist: Path) -> dict[str, Any]:
    """Train as `python -m training fit` does, on the split that it would make."""
    import_tensorflow()
    import keras

    preset = preset_named(name)
    dataset = open_data(str(mnist))
    assignment = assign_splits(dataset, seed=seed, validation=preset.recipe.validation, test=0.0)
    train, validation, test = (
        load_tensors(pictures, preset.preprocessing, dataset.labels, on_bad_image="fail") if pictures else None
        for pictures in (assignment.pictures("train"), assignment.pictures("validation"), assignment.pictures("test"))
    )
    assert train is not None
    assert test is not None
    keras.utils.set_random_seed(seed)
    classes = len(dataset.labels)
    network = build_network(preset.layers, shape=preset.preprocessing.shape, classes=classes)
    cpu = time.process_time()
    result = fit(network, preset.recipe, train, validation, classes=classes, seed=seed, reporter=Reporter())
    cpu = time.process_time() - cpu
    if preset.views == "shifted":
        network = average_shifts(network)
    calibrate(network, validation, "temperature")
    return {
        "accuracy": _accuracy(network, test.images, test.targets),
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
    found = run_tutorial(seed, mnist) if name == TUTORIAL else run_preset(name, seed, mnist)
    print(json.dumps({"name": name, "seed": seed, **found}))  # noqa: T201 - the parent reads this line
