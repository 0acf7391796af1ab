"""The stream of batches: all pictures once an epoch, and the same for the same seed and epoch."""

import itertools
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.data.tensors import Tensors
from training.fitting import batches as batches_module
from training.fitting.batches import Batches, Stopwatch, balanced_weights, held_out_batches
from training.model.preset import Augmentation, Recipe
from training.tensorflow import tf

Batch = tuple[np.ndarray, ...]


def tensors(count: int = 50, classes: int = 3) -> Tensors:
    """Pictures (8, 8, 1) that each show their own number."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 8, 8, 1))
    return Tensors(np.ascontiguousarray(images), np.arange(count, dtype=np.int64) % classes, (), ())


def epoch(recipe: Recipe, number: int = 0, *, seed: int = 0, data: Tensors | None = None) -> list[Batch]:
    batches = Batches(data or tensors(), recipe, classes=3, seed=seed).epoch(number)
    return [tuple(part.numpy() for part in batch) for batch in batches]


def numbers(batches: list[Batch]) -> list[int]:
    return [int(picture.max()) for images, *_ in batches for picture in images]


def test_every_picture_comes_once_with_its_target() -> None:
    found = epoch(Recipe(batch_size=16))
    assert [len(images) for images, _ in found] == [16, 16, 16, 2]
    assert sorted(numbers(found)) == list(range(50))
    for images, targets in found:
        assert (targets.argmax(axis=1) == images[:, 0, 0, 0] % 3).all()
        assert (targets.sum(axis=1) == 1).all()


def test_what_fills_no_batch_is_left_out_of_each_epoch_anew_where_asked() -> None:
    recipe = Recipe(batch_size=16, drop_remainder=True)
    epochs = [epoch(recipe, number) for number in range(2)]
    assert [[len(images) for images, _ in found] for found in epochs] == [[16, 16, 16]] * 2
    assert set(numbers(epochs[0])) != set(numbers(epochs[1]))
    assert len(epoch(Recipe(batch_size=64, drop_remainder=True))) == 1


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    recipe = Recipe(batch_size=16)
    orders = [numbers(epoch(recipe, number, seed=seed)) for number in (0, 1) for seed in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_an_epoch_is_the_same_whatever_ran_before() -> None:
    recipe = Recipe(batch_size=16, augmentation=Augmentation(rotation_degrees=20, paper=0.5), mixup=0.4)
    all_in_turn = Batches(tensors(), recipe, classes=3, seed=4)
    for number in range(2):
        list(all_in_turn.epoch(number))
    for one, other in zip(all_in_turn.epoch(2), epoch(recipe, 2, seed=4), strict=True):
        for part, same in zip(one, other, strict=True):
            assert (part.numpy() == same).all()


def test_augmentation_and_mixup_end_when_they_are_told_to() -> None:
    recipe = Recipe(
        epochs=4, augment_until=0.5, augmentation=Augmentation(paper=1.0), mixup=1.0, label_smoothing=0.0, batch_size=16
    )
    assert sorted(numbers(epoch(recipe, 1))) != list(range(50))
    assert sorted(numbers(epoch(recipe, 2))) == list(range(50))


def test_mixup_blends_targets_as_it_blends_pictures() -> None:
    black_and_white = Tensors(
        np.repeat(np.array([0, 255], np.uint8), 20)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8),
        np.repeat(np.array([0, 1]), 20),
        (),
        (),
    )
    found = epoch(Recipe(batch_size=40, mixup=1.0), data=black_and_white)
    images, targets = found[0]
    assert targets[:, 1] == pytest.approx(images[:, 0, 0, 0] / 255, abs=1 / 255)
    assert len(np.unique(images)) > 5


def test_label_smoothing_gives_every_class_a_share() -> None:
    _, targets = epoch(Recipe(batch_size=50, label_smoothing=0.3))[0]
    assert np.sort(targets, axis=1) == pytest.approx(np.tile([0.1, 0.1, 0.8], (50, 1)))


def test_balanced_weights_make_classes_weigh_alike() -> None:
    targets = np.array([0] * 30 + [1] * 10 + [3] * 20)
    weights = balanced_weights(targets, 4)
    assert [float(weights[targets[targets == label]].sum()) for label in (0, 1, 3)] == pytest.approx([20, 20, 20])
    *_, given = epoch(Recipe(batch_size=60, class_weights="balanced"), data=tensors(60))[0]
    assert given == pytest.approx(np.ones(60))


def test_a_mapped_file_gives_the_batches_of_an_array(tmp_path: Path) -> None:
    data = tensors()
    np.save(tmp_path / "images.npy", data.images)
    mapped = Tensors(np.load(tmp_path / "images.npy", mmap_mode="r"), data.targets, (), ())
    for one, other in zip(epoch(Recipe()), epoch(Recipe(), data=mapped), strict=True):
        assert (one[0] == other[0]).all()


def test_held_out_pictures_come_in_order() -> None:
    ((images, targets),) = held_out_batches(tensors(), classes=3)
    assert (images.numpy() == tensors().images).all()
    assert (targets.numpy().argmax(axis=1) == tensors().targets).all()


def test_a_stopwatch_knows_how_long_was_waited_and_changes_nothing() -> None:
    stopwatch = Stopwatch()
    batches = Batches(tensors(), Recipe(batch_size=16), classes=3, seed=0)
    timed = list(batches.epoch(0, stopwatch=stopwatch))
    for one, other in zip(timed, batches.epoch(0), strict=True):
        assert (one[0].numpy() == other[0].numpy()).all()
    assert stopwatch.seconds > 0


def test_a_stopwatch_counts_the_time_of_an_input_that_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Semaphore(0)  # once for each batch, so that none is made ahead, however busy the machine is
    timestamp = tf.timestamp
    traced = itertools.count()

    def ask() -> np.int64:
        asked.release()
        return np.int64(0)

    def timestamp_that_asks() -> tf.Tensor:
        if next(traced) % 2:  # after a batch
            return timestamp()
        with tf.control_dependencies([tf.numpy_function(ask, [], tf.int64)]):
            return timestamp()

    def slow(images: tf.Tensor, _: Any, *, seed: Any) -> tf.Tensor:
        def wait(given: Any) -> Any:
            assert asked.acquire(timeout=60)
            time.sleep(0.1)
            return given

        shape = images.shape
        images = tf.numpy_function(wait, [images], tf.uint8)
        images.set_shape(shape)
        return images

    monkeypatch.setattr(tf, "timestamp", timestamp_that_asks)
    monkeypatch.setattr(batches_module, "available_cores", lambda: 1)  # one after another
    monkeypatch.setattr(batches_module, "augment", slow)
    stopwatch = Stopwatch()
    recipe = Recipe(batch_size=16, augmentation=Augmentation(shift=0.02))
    steps = len(list(Batches(tensors(), recipe, classes=3, seed=0).epoch(0, stopwatch=stopwatch)))
    assert stopwatch.seconds > 0.1 * steps * 0.9
