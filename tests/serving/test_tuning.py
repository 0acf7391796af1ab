"""How a model is run is measured on its own engine. Here the engine itself says how long it takes: nothing waits."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.contract.bundle import Bundle, open_bundle
from app.contract.preprocessing import Image
from app.engines.loading import LoadedModel, load_model
from app.engines.proof import Proof
from app.engines.registry import EngineName
from app.errors import SelfCheckFailed
from app.serving import tuning
from app.serving.tuning import TuningOptions, tune

MS = 0.001
Cost = Callable[[int], float]


class Clock:
    """Stands for the module `time`: it goes on only where someone works."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Worker:
    """An engine that knows the golden answers and takes `cost(size)` seconds for a batch; half of it once prepared."""

    name: EngineName = "openvino"

    def __init__(self, bundle: Bundle, clock: Clock, cost: Cost, *, wrong_size: int = 0, error: float = 0.5) -> None:
        golden = bundle.golden
        self.answers = {
            image.tobytes(): answer for image, answer in zip(golden.images, golden.probabilities, strict=True)
        }
        self.clock, self.cost = clock, cost
        self.wrong_size, self.error = wrong_size, error
        self.prepared: list[int] = []
        self.proven: dict[int, int] = {}
        self.seen: set[int] = set()

    def predict(self, batch: Image) -> NDArray[np.float32]:
        size = len(batch)
        self.seen.add(size)
        self.clock.now += self.cost(size) / (2 if size in self.prepared else 1)
        answers = np.stack([self.answers[image.tobytes()] for image in batch])
        if size == self.wrong_size and size in self.prepared:
            answers[0, 0] += np.float32(self.error)
        if size in self.prepared:
            self.proven[size] = self.proven.get(size, 0) + size
        return answers

    def prepare(self, batch_size: int) -> None:
        self.prepared.append(batch_size)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def bundle(trained_store: Path) -> Bundle:
    return open_bundle(trained_store / "digits" / "1")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(tuning, "time", clock)
    return clock


Load = Callable[..., tuple[LoadedModel, Worker]]


@pytest.fixture
def load(bundle: Bundle, clock: Clock) -> Load:
    def with_cost(cost: Cost, **how: Any) -> tuple[LoadedModel, Worker]:
        worker = Worker(bundle, clock, cost, **how)
        return LoadedModel(bundle, worker, "as a test", Proof(16, 0.0)), worker

    return with_cost


def options(**given: Any) -> TuningOptions:
    return TuningOptions(**{"inline_decode_pixels": 0, **given})


def test_sizes_grow_as_long_as_a_picture_gets_cheaper(load: Load) -> None:
    loaded, _ = load(lambda size: 5 * MS + size * MS / 10)
    assert list(tune(loaded, options()).batch_seconds) == [1, 4, 16, 64]


def test_a_model_that_gains_nothing_by_batches_runs_single_pictures(load: Load) -> None:
    loaded, worker = load(lambda size: size * 20 * MS)
    assert list(tune(loaded, options()).batch_seconds) == [1]
    assert worker.seen == {1, 4}  # larger ones are not even tried


def test_a_small_network_gets_batches_though_its_inference_alone_gains_nothing(load: Load) -> None:
    loaded, _ = load(lambda size: size * MS / 10)
    assert list(tune(loaded, options()).batch_seconds) == [1, 4, 16]


def test_sizes_stop_where_they_no_longer_gain(load: Load) -> None:
    loaded, _ = load(lambda size: (5 if size <= 4 else size) * MS)
    assert list(tune(loaded, options()).batch_seconds) == [1, 4, 16]
    loaded, _ = load(lambda size: (5 if size <= 4 else 1.3 * size) * MS)
    assert list(tune(loaded, options()).batch_seconds) == [1, 4]


@pytest.mark.parametrize(("most", "sizes"), [(1, [1]), (3, [1, 3]), (4, [1, 4]), (20, [1, 4, 16, 20])])
def test_no_batch_is_larger_than_the_setting_allows(load: Load, most: int, sizes: list[int]) -> None:
    loaded, worker = load(lambda size: 20 * MS + size * MS / 100)
    assert list(tune(loaded, options(max_batch_size=most)).batch_seconds) == sizes
    assert max(worker.seen) == most


def test_a_quick_model_runs_on_the_event_loop_in_the_batches_that_are_quick_there(load: Load) -> None:
    loaded, _ = load(lambda size: MS + size * MS / 10)
    found = tune(loaded, options())
    assert found.on_event_loop
    assert list(found.batch_seconds) == [1, 4, 16]  # 64 would hold the loop up for 7.4 ms


def test_a_slow_model_runs_in_a_thread_in_batches_of_every_size(load: Load) -> None:
    loaded, _ = load(lambda size: 5 * MS + size * MS / 10)
    found = tune(loaded, options())
    assert not found.on_event_loop
    assert list(found.batch_seconds) == [1, 4, 16, 64]


@pytest.mark.parametrize("place", ["loop", "thread"])
@pytest.mark.parametrize("single_ms", [0.1, 50.0])
def test_the_setting_fixes_where_batches_run_and_keeps_all_sizes(load: Load, place: Any, single_ms: float) -> None:
    loaded, _ = load(lambda size: single_ms * MS * (1 + size / 10))
    found = tune(loaded, options(inference_place=place))
    assert found.on_event_loop == (place == "loop")
    assert list(found.batch_seconds) == [1, 4, 16, 64]


def test_every_size_is_prepared_proven_and_timed_as_it_will_serve(load: Load) -> None:
    def cost(size: int) -> float:
        return 5 * MS + size * MS / 10

    loaded, worker = load(cost)
    found = tune(loaded, options())
    assert worker.prepared == [1, 4, 16, 64]
    assert all(worker.proven[size] >= 16 for size in worker.prepared)  # each of the 16 golden pictures
    for size, seconds in found.batch_seconds.items():
        assert seconds == pytest.approx(cost(size) / 2)  # as prepared, not as first tried
    assert found.plan.sizes == [1, 4, 16, 64]


@pytest.mark.parametrize("wrong_size", [1, 4, 64])
@pytest.mark.parametrize("error", [0.001, np.nan])
def test_a_size_that_changes_the_answers_is_refused(load: Load, wrong_size: int, error: float) -> None:
    loaded, _ = load(lambda size: 5 * MS + size * MS / 10, wrong_size=wrong_size, error=error)
    with pytest.raises(SelfCheckFailed, match="gives probabilities for the golden pictures that differ"):
        tune(loaded, options())


def test_a_size_may_differ_as_far_as_the_precision_allows(load: Load) -> None:
    loaded, _ = load(lambda size: 5 * MS + size * MS / 10, wrong_size=4, error=0.01)
    assert tune(replace(loaded, precision="bf16"), options()).batch_seconds
    with pytest.raises(SelfCheckFailed):
        tune(loaded, options())


@pytest.mark.parametrize(("decode_ms", "pixels"), [(0.25, 2 * 256 * 256), (0.5, 256 * 256), (2.0, 128 * 128)])
def test_what_is_decoded_without_a_thread_is_what_takes_half_a_millisecond(
    load: Load, clock: Clock, monkeypatch: pytest.MonkeyPatch, decode_ms: float, pixels: int
) -> None:
    def decode(*_: Any) -> None:
        clock.now += decode_ms * MS

    monkeypatch.setattr(tuning, "preprocess", decode)
    loaded, _ = load(lambda size: size * MS)
    assert tune(loaded, options(inline_decode_pixels=None)).inline_decode_pixels == pytest.approx(pixels, abs=1)


@pytest.mark.parametrize("pixels", [0, 12345])
def test_the_setting_fixes_what_is_decoded_without_a_thread(load: Load, pixels: int) -> None:
    loaded, _ = load(lambda size: size * MS)
    assert tune(loaded, options(inline_decode_pixels=pixels)).inline_decode_pixels == pixels


def test_the_real_engine_is_tuned_within_its_bounds(trained_store: Path) -> None:
    loaded = load_model(trained_store / "digits" / "1", engine="openvino", threads=1)
    found = tune(loaded, TuningOptions(max_batch_size=16))
    assert found.plan.sizes[0] == 1
    assert found.plan.sizes[-1] <= 16
    assert found.inline_decode_pixels > 0
    assert all(seconds > 0 for seconds in found.batch_seconds.values())
    loaded.engine.close()


def test_a_model_of_a_known_kind_is_prepared_and_proven_but_not_measured(load: Load) -> None:
    first, _ = load(lambda size: 0.1 * MS * (8 + size))
    known = tune(first, TuningOptions(inline_decode_pixels=1))
    second, engine = load(lambda size: 50 * MS * size)  # as on a busy machine
    assert tune(second, TuningOptions(), known=known, busy=True) == known
    assert engine.prepared == list(known.batch_seconds)
    assert set(engine.proven) == set(known.batch_seconds)


def test_what_is_known_does_not_let_a_wrong_answer_pass(load: Load) -> None:
    first, _ = load(lambda size: 0.1 * MS * (8 + size))
    known = tune(first, TuningOptions(inline_decode_pixels=1))
    liar, _ = load(lambda size: MS, wrong_size=4)
    with pytest.raises(SelfCheckFailed):
        tune(liar, TuningOptions(), known=known)


def test_a_busy_machine_is_asked_more_often_before_the_fastest_call_counts(load: Load) -> None:
    calls = iter(range(1_000_000))
    busy: Cost = lambda size: MS * size * (1 if next(calls) % 10 == 9 else 5)  # noqa: E731
    hasty, _ = load(busy)
    patient, _ = load(busy)
    options = TuningOptions(max_batch_size=1, inline_decode_pixels=1)
    assert min(tune(hasty, options).batch_seconds.values()) > MS
    assert min(tune(patient, options, busy=True).batch_seconds.values()) <= MS
