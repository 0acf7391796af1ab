"""Several replicas train as one does: the same global batches, weights equal to rounding."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TRAIN = """
import sys
from pathlib import Path
import numpy as np
from app.engines.tensorflow import import_tensorflow
from training.fitting.distribution import normalize_over_replicas, open_distribution

tf = import_tensorflow()
strategies, out = sys.argv[1].split(","), Path(sys.argv[2])
if "mirrored" in strategies:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
first = open_distribution(strategies[0], say=print)  # before anything else is done with TensorFlow

import keras
from training.fitting.fit import fit
from training.model.layers import Conv2D, GlobalAveragePool2D
from training.model.network import build_network
from training.model.preset import Augmentation, Recipe
from training.progress import Reporter
from training.data.tensors import Tensors

def tensors(count, random):
    targets = random.integers(0, 2, count)
    images = random.integers(0, 80, (count, 8, 8, 1))
    images[targets == 0, ::2] += 150
    images[targets == 1, :, ::2] += 150
    return Tensors(images.astype(np.uint8), targets, (), ())

recipe = Recipe(
    optimizer="momentum", learning_rate=0.02, batch_size=16, epochs=2, mixup=0.2,
    augmentation=Augmentation(rotation_degrees=10), weight_averaging=0.9, class_weights="balanced",
)
for strategy in strategies:
    distribution = first if strategy == strategies[0] else open_distribution(strategy, say=print)
    assert distribution.replicas == (1 if strategy == "none" else 2)
    random = np.random.default_rng(0)
    train, validation = tensors(72, random), tensors(64, random)
    keras.utils.set_random_seed(0)
    with distribution.scope():
        layers = (Conv2D(4, batch_normalization=True), Conv2D(4), GlobalAveragePool2D())
        network = build_network(layers, shape=(8, 8, 1), classes=2)
        normalize_over_replicas(network, distribution.replicas)
        done = fit(network, recipe, train, validation, classes=2, seed=0, reporter=Reporter())
        weights = network.get_weights()
    figures = [[e.loss, e.accuracy, e.validation_loss, e.validation_accuracy] for e in done.epochs]
    np.savez(out / f"{strategy}.npz", *weights, figures=np.array(figures), chief=distribution.is_chief)
"""
"""Train by each of the strategies in one process, and write into a folder what each has come to."""
TOLERANCE = 1e-5


def start(strategies: str, out: Path, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN, strategies, str(out)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TF_NUM_INTRAOP_THREADS": "1", **environment},
    )


def finish(process: "subprocess.Popen[str]") -> None:
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said


def result(out: Path) -> dict[str, np.ndarray]:
    with np.load(out) as stored:
        return dict(stored)


def check_alike(found: dict[str, np.ndarray], one: dict[str, np.ndarray]) -> None:
    assert found.keys() == one.keys()
    for name in one.keys() - {"chief"}:
        assert found[name] == pytest.approx(one[name], abs=TOLERANCE), name


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


@pytest.mark.long
def test_two_worker_processes_and_two_devices_train_as_one(tmp_path: Path) -> None:
    finish(start("none,mirrored", tmp_path))
    one = result(tmp_path / "none.npz")
    check_alike(result(tmp_path / "mirrored.npz"), one)

    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    folders = [tmp_path / f"worker-{index}" for index in range(2)]
    workers = []
    for index, folder in enumerate(folders):
        folder.mkdir()
        task = {"type": "worker", "index": index}
        workers.append(start("multi_worker", folder, TF_CONFIG=json.dumps({"cluster": cluster, "task": task})))
    for worker in workers:
        finish(worker)
    found = [result(folder / "multi_worker.npz") for folder in folders]
    for each in found:
        check_alike(each, one)
    assert [bool(each["chief"]) for each in found] == [True, False]


@pytest.mark.long
def test_a_worker_that_goes_ends_the_others_with_one_line(tmp_path: Path, few_digits: Path) -> None:
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    fit = [
        "fit",
        "--preset",
        "seed",
        "--data",
        str(few_digits),
        "--name",
        "d",
        "--epochs",
        "1000",
        "--batch-size",
        "64",
        "--strategy",
    ]
    chief, other = (
        subprocess.Popen(
            [sys.executable, "-m", "training", *fit, "multi_worker", "--model-store", str(tmp_path)],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={
                **os.environ,
                "TF_NUM_INTRAOP_THREADS": "1",
                "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
            },
        )
        for index in range(2)
    )
    assert chief.stderr is not None
    assert any(line.startswith("waiting until all 2 workers") for line in chief.stderr)
    assert any(line.startswith("epoch 2/1000") for line in chief.stderr)
    other.kill()
    other.communicate()
    _, said = chief.communicate(timeout=120)
    assert chief.returncode == 1
    assert "error: Another worker has stopped. Restart all workers with --resume." in said.splitlines()
    assert "Traceback" not in said
    assert (tmp_path / "d" / ".runs" / "1" / "checkpoint.npz").exists()
