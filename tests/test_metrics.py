import struct
from multiprocessing import get_context

import pytest

from app.metrics import FAMILIES, ROW_BYTES, Metrics


def test_the_numbers_of_all_workers_are_read_together_from_any() -> None:
    rows = [bytearray(ROW_BYTES) for _ in range(2)]
    one, other = Metrics(rows, 0), Metrics(rows, 1)
    one.request("/predict", "mnist", "1", "200").add()
    other.request("/predict", "mnist", "1", "200").add(2)
    other.request("/predict", "", "", "415").add()
    expected = {("/predict", "mnist", "1", "200"): [3.0], ("/predict", "", "", "415"): [1.0]}
    assert one.read()["imageclass_requests"] == other.read()["imageclass_requests"] == expected


def test_a_replaced_worker_goes_on_where_the_one_before_it_ended() -> None:
    rows = [bytearray(ROW_BYTES)]
    first = Metrics(rows)
    first.begin()
    first.dropped("refused").add(5)
    first.pending_pictures.set(7)
    second = Metrics(rows)
    second.begin()
    second.dropped("refused").add()
    found = second.read()
    assert found["imageclass_dropped"] == {("refused",): [6.0]}
    assert found["imageclass_worker_starts"] == {(): [2.0]}
    assert found["imageclass_pending_pictures"] == {(): [0.0]}, "what it held is gone with it"


def test_a_histogram_has_its_sum_and_the_count_of_every_bucket() -> None:
    metrics = Metrics()
    batch_size = metrics.batch_size("mnist")
    for size in (1, 2, 3, 4, 5000):
        batch_size.observe(size)
    ((total, *counts),) = metrics.read()["imageclass_batch_size"].values()
    assert total == 5010
    assert counts[:3] == [1, 1, 2], "a bound belongs to the bucket that it ends"
    assert counts[-1] == 1
    assert len(counts) == len(FAMILIES["imageclass_batch_size"].bounds) + 1


def test_what_is_true_of_a_worker_is_not_added_up() -> None:
    rows = [bytearray(ROW_BYTES) for _ in range(2)]
    for worker in range(2):
        Metrics(rows, worker).model_info("mnist", "1", "openvino", "f32").set(1)
    assert Metrics(rows).read()["imageclass_model_info"] == {("mnist", "1", "openvino", "f32"): [1.0]}


def test_more_series_than_there_is_room_for_neither_fail_nor_harm_the_others() -> None:
    metrics = Metrics()
    first = metrics.request("/predict", "mnist", "1", "200")
    for version in range(1000):  # more than twice as many as there is room for
        metrics.stage(f"model-{version}", "inference").observe(1.0)
    first.add()
    found = metrics.read()
    assert found["imageclass_requests"] == {("/predict", "mnist", "1", "200"): [1.0]}
    assert all(numbers[0] in (0.0, 1.0) for numbers in found["imageclass_stage_seconds"].values())


def test_rows_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="bytes"):
        Metrics([bytearray(8)])


def count_in_another_process(rows: list[bytearray]) -> None:
    Metrics(rows, 1).error("/predict", "overloaded").add(3)


def test_another_process_counts_into_shared_memory() -> None:
    context = get_context("spawn")
    rows = [context.RawArray("B", ROW_BYTES) for _ in range(2)]
    process = context.Process(target=count_in_another_process, args=(rows,))
    process.start()
    process.join(timeout=60)
    assert process.exitcode == 0
    assert Metrics(rows).read()["imageclass_errors"] == {("/predict", "overloaded"): [3.0]}


def test_workers_are_ready_while_they_say_so_and_show_that_they_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("app.metrics.time.monotonic", lambda: now)
    rows = [bytearray(ROW_BYTES) for _ in range(3)]
    workers = [Metrics(rows, worker) for worker in range(3)]
    for worker in workers[:2]:
        worker.begin()
        worker.sign_of_life(resident_bytes=100)
        worker.set_ready(ready=True)
    assert [worker.workers_ready() for worker in workers] == [2, 2, 2]
    now += 60
    workers[1].sign_of_life()
    assert workers[0].workers_ready() == 1, "one hangs"
    assert workers[1].last_sign_of_life == now
    workers[1].vacate()
    found = workers[0].read()
    assert found["imageclass_workers_ready"] == {(): [0.0]}
    assert found["imageclass_resident_bytes"] == {("0",): [100.0], ("1",): [0.0]}, "the one that hangs still takes it"


def test_a_row_has_room_for_its_parts() -> None:
    assert ROW_BYTES % struct.calcsize("d") == 0
