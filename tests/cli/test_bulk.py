"""Jobs of many pictures: each is answered once, whatever happens on the way. The model is made up, the rest is real."""

import csv
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from app.cli.predict.bulk.answers import DECISIONS, Values, answers_to, row_of
from app.cli.predict.bulk.job import begun_with, held, run
from app.cli.predict.bulk.journal import recorded_in
from app.cli.predict.bulk.parts import Layout
from app.cli.predict.bulk.plan import Plan
from app.cli.predict.bulk.service import ServiceClassifier
from app.cli.predict.bulk.shard import BATCH, Shard, Target, work_on
from app.cli.predict.bulk.worker_pool import Signals, threads
from app.cli.predict.options import PartFormat
from app.cli.predict.pictures import Picture, find
from app.cli.predict.progress import Progress
from app.client import Failure, ModelReference, ServedModel, ServiceClient
from app.contract.answer_options import AnswerOptions
from app.contract.picture_files import LeftOut
from app.errors import OutputConflict, OutputNotWritable

LABELS = ("cat", "dog", "owl")
SIZE = 3 * BATCH + 5
Parts = dict[str, bytes]


class Model:
    """Answers by a picture's digest; a picture that says bad has none. It counts, and fails in the call `fails_in`."""

    def __init__(self, fails_in: int = -1) -> None:
        self.answered: list[bytes] = []
        self._fails_in = fails_in

    def __call__(self, pictures: Sequence[bytes]) -> list[Values | Failure]:
        if self._fails_in == 0:
            raise RuntimeError
        self._fails_in -= 1
        self.answered += pictures
        return [Failure("The picture is bad.", "bad") if b"bad" in each else values_of(each) for each in pictures]


def values_of(data: bytes) -> Values:
    values = np.frombuffer(hashlib.sha256(data).digest()[: len(LABELS)], np.uint8).astype(np.float32) + 1
    return np.asarray(values / values.sum(), np.float32)


def target_in(folder: Path, output: PartFormat = "jsonl", top_k: int | None = None) -> Target:
    (folder / ".journal").mkdir(parents=True, exist_ok=True)
    return Target(folder, Layout(output, ModelReference("pets", 2), LABELS, AnswerOptions(top_k)), 1_000_000)


def work(target: Target, *sources: Path, model: Model | None = None, workers: int = 2) -> Model:
    """Begin a job, or go on with it, to its end."""
    model = model or Model()
    left_out: list[LeftOut] = []
    plan = Plan.of(target, lambda: find(map(str, sources), left_out), SIZE)
    signals = Signals.new()
    with Progress(total=plan.total, shown=False) as progress, threads(model, target, signals, workers) as pool:
        run(plan, pool, signals, progress)
    return model


def parts(target: Target) -> Parts:
    return {path.name: path.read_bytes() for path in sorted(target.folder.glob("*")) if path.is_file()}


def files_in(found: Parts) -> list[str]:
    return [json.loads(line)["file"] for part in found.values() for line in part.splitlines()]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three shards and a bit, of files in two folders; three are bad, and one cannot be read."""
    folder = tmp_path / "pictures"
    for number in range(3 * SIZE + 10):
        path = folder / str(number % 2) / f"{number:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{'bad' if number % 100 == 7 else 'good'} {number}".encode())
    return folder


@pytest.fixture
def unbroken(pictures: Path, tmp_path: Path) -> Parts:
    """The parts of a job that nothing disturbs."""
    target = target_in(tmp_path / "unbroken")
    work(target, pictures)
    return parts(target)


def test_every_picture_is_a_row_in_the_order_of_names(pictures: Path, unbroken: Parts) -> None:
    assert files_in(unbroken) == sorted(str(path) for path in pictures.rglob("*.png"))
    rows = [json.loads(line) for part in unbroken.values() for line in part.splitlines()]
    for row in rows:
        data = Path(row["file"]).read_bytes()
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert row.get("error") == ("The picture is bad." if b"bad" in data else None)
        if "error" not in row:
            assert list(row["probabilities"].values()) == pytest.approx(values_of(data).tolist())


def test_a_job_that_fails_anywhere_goes_on_as_if_it_had_not(pictures: Path, unbroken: Parts, tmp_path: Path) -> None:
    calls = 3 * SIZE // BATCH + 4
    for call in range(0, calls, 2):
        target = target_in(tmp_path / f"broken-{call}")
        model = Model(fails_in=call)
        with pytest.raises(RuntimeError):
            work(target, pictures, model=model)
        again = work(target, pictures)
        assert parts(target) == unbroken
        answered = model.answered + again.answered
        # In one process nothing is lost: what was answered when the other thread failed is in its journal.
        assert len(answered) == len(set(answered)) == 3 * SIZE + 10


def test_a_journal_that_ends_anywhere_is_gone_on_with(pictures: Path, unbroken: Parts, tmp_path: Path) -> None:
    target = target_in(tmp_path / "cut")
    work(target, pictures)
    journal = target.journal(1)
    whole = journal.read_bytes()
    for size in np.random.default_rng(0).integers(0, len(whole), 20).tolist():
        journal.write_bytes(whole[:size])
        recorded = len(recorded_in(journal).answers)
        assert len(work(target, pictures).answered) == SIZE - recorded
        assert parts(target) == unbroken


def test_a_finished_job_does_nothing_more(pictures: Path, unbroken: Parts, tmp_path: Path) -> None:
    target = target_in(tmp_path / "unbroken")
    assert work(target, pictures).answered == []
    assert parts(target) == unbroken


def test_a_picture_that_changed_is_answered_again_alone(pictures: Path, unbroken: Parts, tmp_path: Path) -> None:
    target = target_in(tmp_path / "unbroken")
    changed = pictures / "1" / "0011.png"
    status = changed.stat()
    changed.write_bytes(b"good!!11"[: status.st_size])
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))  # its size and time are as before
    assert work(target, pictures).answered == [changed.read_bytes()]
    fresh = target_in(tmp_path / "fresh")
    work(fresh, pictures)
    assert parts(target) == parts(fresh) != unbroken


def test_a_picture_that_was_only_touched_is_not_answered_again(pictures: Path, unbroken: Parts, tmp_path: Path) -> None:
    (pictures / "1" / "0011.png").touch()
    target = target_in(tmp_path / "unbroken")
    assert work(target, pictures).answered == []
    assert parts(target) == unbroken


def test_new_pictures_make_new_parts_and_missing_ones_leave_theirs(
    pictures: Path, unbroken: Parts, tmp_path: Path
) -> None:
    target = target_in(tmp_path / "unbroken")
    (pictures / "0" / "0000-new.png").write_bytes(b"new")
    (pictures / "1" / "0011.png").unlink()
    assert work(target, pictures).answered == [b"new"]
    found = parts(target)
    assert sorted(files_in(found)) == sorted(str(path) for path in pictures.rglob("*.png"))
    assert len(found) == len(unbroken) + 1
    assert work(target, pictures).answered == []


def test_a_part_that_was_lost_is_written_again_from_its_journal(
    pictures: Path, unbroken: Parts, tmp_path: Path
) -> None:
    target = target_in(tmp_path / "unbroken")
    target.part(1).unlink()
    assert work(target, pictures).answered == []
    assert parts(target) == unbroken


def test_parts_of_which_no_picture_is_left_go(pictures: Path, unbroken: Parts, tmp_path: Path) -> None:
    target = target_in(tmp_path / "unbroken")
    for path in pictures.rglob("*.png"):
        path.unlink()
    work(target, pictures)
    assert unbroken
    assert parts(target) == {}


def test_a_picture_that_is_named_twice_is_answered_once(pictures: Path, unbroken: Parts, tmp_path: Path) -> None:
    target = target_in(tmp_path / "twice")
    work(target, pictures, pictures / "1")
    assert parts(target) == unbroken


def test_what_cannot_be_read_is_a_row_and_is_tried_again(tmp_path: Path) -> None:
    target, missing = target_in(tmp_path / "out"), tmp_path / "missing.png"
    assert work(target, missing).answered == []
    (row,) = parts(target).values()
    assert json.loads(row) == {
        "file": str(missing),
        "error": "No such file or directory.",
        "code": "unreadable",
        "sha256": "",
    }
    missing.write_bytes(b"good")
    assert work(target, missing).answered == [b"good"]


def test_a_file_that_is_too_large_is_a_row_without_being_read_whole(tmp_path: Path) -> None:
    target = target_in(tmp_path / "out")
    with (tmp_path / "large.png").open("wb") as stream:
        stream.truncate(1 << 40)
    assert work(target, tmp_path / "large.png").answered == []
    (row,) = parts(target).values()
    assert json.loads(row)["code"] == "upload_too_large"


def test_archives_and_manifests_are_sources_too(pictures: Path, tmp_path: Path) -> None:
    names = sorted(pictures.rglob("*.png"))
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        for path in names[:5]:
            archive.write(path, path.name)
        archive.writestr("notes.txt", "no picture")
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(f"{path},x\n" for path in names[5:8]))
    target = target_in(tmp_path / "out")
    model = work(target, tmp_path / "pictures.zip", tmp_path / "list.csv")
    assert model.answered == [path.read_bytes() for path in names[:8]]
    assert files_in(parts(target)) == [
        *(f"{tmp_path}/pictures.zip/{path.name}" for path in names[:5]),
        *map(str, names[5:8]),
    ]
    assert work(target, tmp_path / "pictures.zip", tmp_path / "list.csv").answered == []


def test_a_name_that_is_no_text_is_gone_on_with(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "odd")
    os.mkdir(folder)  # noqa: PTH102 - bytes
    with open(folder + b"/\xff.png", "wb") as stream:  # noqa: PTH123 - the same
        stream.write(b"good")
    target = target_in(tmp_path / "out")
    assert work(target, tmp_path / "odd").answered == [b"good"]
    assert work(target, tmp_path / "odd").answered == []
    assert files_in(parts(target)) == [f"{tmp_path}/odd/\N{REPLACEMENT CHARACTER}.png"]


@pytest.mark.parametrize("top_k", [None, 1, 2, 5])
@pytest.mark.parametrize("output", ["parquet", "csv", "jsonl"])
def test_every_format_says_the_same(output: PartFormat, top_k: int | None) -> None:
    answers = answers_to([Picture("a", b"good"), Picture("b", b"bad"), Picture("c", b"fine")], Model())
    stream = io.BytesIO()
    Layout(output, ModelReference("pets", 2), LABELS, AnswerOptions(top_k)).write(answers, stream)
    if output == "parquet":
        rows = pq.read_table(io.BytesIO(stream.getvalue())).to_pylist()
    elif output == "csv":
        rows = list(csv.DictReader(io.StringIO(stream.getvalue().decode())))
    else:
        rows = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(row["file"], row["sha256"]) for row in rows] == [(each.file, each.sha256) for each in answers]
    assert (rows[1]["error"], rows[1]["code"]) == ("The picture is bad.", "bad")
    for row, data in ((rows[0], b"good"), (rows[2], b"fine")):
        values = values_of(data)
        order = np.argsort(-values)
        assert row["label"] == LABELS[order[0]]
        assert float(row["probability"]) == pytest.approx(values[order[0]])
        if output != "csv":
            shown = order[:top_k] if top_k else range(len(LABELS))
            labels = row["labels"] if output == "parquet" else list(row["probabilities"])
            numbers = row["probabilities"] if output == "parquet" else list(row["probabilities"].values())
            assert labels == [LABELS[each] for each in shown]
            assert numbers == pytest.approx(values[list(shown)])


@pytest.mark.parametrize("output", ["parquet", "csv", "jsonl"])
def test_decisions_and_sets_are_columns_of_every_format(output: PartFormat) -> None:
    options = AnswerOptions(top_k=1, min_probability=0.5, set=0.1)
    probabilities = np.array([[0.1, 0.7, 0.2], [0.4, 0.3, 0.3]], np.float32)
    rows: list[Values | Failure] = [
        row_of(probabilities[0], options, "label", [1, 2]),
        Failure("The picture is bad.", "bad"),
        row_of(probabilities[1], options, "unsure", []),
    ]
    answers = answers_to([Picture(name, b"") for name in "abc"], lambda _: rows)
    stream = io.BytesIO()
    Layout(output, ModelReference("pets", 2), LABELS, options).write(answers, stream)
    found: list[dict[str, Any]]
    if output == "parquet":
        found = pq.read_table(io.BytesIO(stream.getvalue())).to_pylist()
    elif output == "csv":
        found = [
            row | {"set": json.loads(row["set"] or "null"), "decision": row["decision"] or None}
            for row in csv.DictReader(io.StringIO(stream.getvalue().decode()))
        ]
    else:
        found = [{"decision": None, "set": None} | json.loads(line) for line in stream.getvalue().splitlines()]
    assert [row["decision"] for row in found] == ["label", None, "unsure"]
    assert [row["set"] for row in found] == [["dog", "owl"], None, []]
    assert [row.get("label") or None for row in found] == ["dog", None, "cat"]


def test_a_service_is_asked_for_them() -> None:
    said = {"label": "dog", "probability": 0.6, "probabilities": dict(zip(LABELS, (0.1, 0.6, 0.3), strict=True))}
    set_ = {"labels": ["dog"], "error_rate": 0.1, "method": "lac", "held_out": 80, "calibration": ""}
    asked: list[httpx.Request] = []

    def service(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        entry = {**said, "decision": "unfamiliar", "set": set_}
        return httpx.Response(200, json={"predictions": [entry], "model": {"name": "pets", "version": 2}})

    options = AnswerOptions(top_k=1, false_alarms=0.05, set=0.1)
    with ServiceClient("http://service", transport=httpx.MockTransport(service)) as client:
        (values,) = ServiceClassifier(client, ServedModel("pets", 2, LABELS, {}), options)([b"picture"])
    assert not isinstance(values, Failure)
    np.testing.assert_allclose(values, [0.1, 0.6, 0.3, DECISIONS.index("unfamiliar"), 0, 1, 0], atol=1e-6)
    assert dict(asked[0].url.params) == {"model": "pets", "false_alarms": "0.05", "set": "0.1"}


@pytest.mark.parametrize("output", ["parquet", "csv", "jsonl"])
def test_a_part_without_a_single_answer_is_written(output: PartFormat, tmp_path: Path) -> None:
    target = target_in(tmp_path / "out", output)
    work(target, tmp_path / "missing.png")
    assert list(parts(target)) == [f"part-00000.{output}"]


def test_a_disk_that_is_full_is_said_and_leaves_no_part(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = target_in(tmp_path / "out")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    shard = Shard(0, tuple(sorted(map(str, pictures.rglob("*.png")))[:40]))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputNotWritable, match=r"out cannot be written: No space left on device\. Fix that"):
            work_on(shard, target, Model(), lambda _: None)
    assert parts(target) == {}
    again = Model()
    work_on(shard, target, again, lambda _: None)
    assert again.answered == []


def test_a_folder_with_something_in_it_is_not_written_to_unasked(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(OutputConflict, match=r"is not empty\. Add --resume"), held(tmp_path, resume=False):
        pass


def test_one_process_at_a_time_writes_to_a_folder(tmp_path: Path) -> None:
    with held(tmp_path / "out", resume=False):
        assert begun_with(tmp_path / "out") is None
        with pytest.raises(OutputConflict, match="Another process is working"), held(tmp_path / "out", resume=True):
            pass
    with held(tmp_path / "out", resume=False):  # nothing was begun in it
        pass
