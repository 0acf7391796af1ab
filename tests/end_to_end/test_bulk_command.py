"""`python -m app predict --shards` as its users meet it: killed, out of disk, and asked to go on.

    .venv/bin/python -m pytest tests/end_to_end/test_bulk_command.py -s -k killed --kills 10 --bulk-pictures 100000

kills it ten times and prints a table.
"""

import csv
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from app.__main__ import cli
from app.cli.predict.bulk.answers import answers_to, row_of
from app.cli.predict.bulk.here import ModelHere, check_has_features
from app.cli.predict.bulk.job import held
from app.cli.predict.bulk.parts import Layout
from app.cli.predict.bulk.shard import BATCH, Shard, Target
from app.cli.predict.bulk.worker_pool import Signals, processes
from app.cli.predict.options import PartFormat
from app.cli.predict.pictures import Picture
from app.client import Failure, ModelReference
from app.contract.answer_options import AnswerOptions, AnswerSettings
from app.contract.bundle import open_bundle
from app.contract.judgement import Judge
from app.engines.engine import GivesOutputs
from app.engines.loading import open_engine
from app.errors import MalformedRequest
from app.settings import Settings
from tests.end_to_end.draining import DrainingService
from tests.end_to_end.pages import opened, run, run_program

Parts = dict[str, bytes]


def predict(
    *arguments: object, before: Callable[[], None] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=3600,
        preexec_fn=before,
    )


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "app", "predict", *map(str, arguments), "--model-store", "model_store"]


def parts(folder: Path) -> Parts:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*"))}


def recorded(folder: Path) -> int:
    """How many answers the journals hold, each time that one was given."""
    return sum(
        len(json.loads(line)["rows"])
        for journal in (folder / ".journal").glob("*.jsonl")
        for line in journal.read_bytes().splitlines()
        if line.startswith(b'{"rows"') and line.endswith(b"}")
    )


def journalled(folder: Path) -> int:
    return sum(journal.stat().st_size for journal in (folder / ".journal").glob("*.jsonl"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, data_folder: Path, pytestconfig: pytest.Config) -> Path:
    """So many different digits, and a text that is called a picture."""
    folder = tmp_path_factory.mktemp("pictures")
    digits = [np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)) for path in sorted(data_folder.glob("?-*.png"))]
    for number in range(pytestconfig.getoption("--bulk-pictures")):
        place = folder / f"{number // 1000:03}" / f"{number:06}.png"
        place.parent.mkdir(exist_ok=True)
        digit = digits[number % len(digits)].copy()
        digit[0, :4] = np.frombuffer(number.to_bytes(4), np.uint8)
        place.write_bytes(cv2.imencode(".png", digit)[1].tobytes())
    (folder / "000" / "bad.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def options(pytestconfig: pytest.Config) -> list[object]:
    """Parts of about a twentieth of the pictures, or of a thousand."""
    return ["--output", "parquet", "--shard-size", min(1000, pytestconfig.getoption("--bulk-pictures") // 5)]


@pytest.fixture(scope="module")
def unbroken(pictures: Path, options: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a job that nothing disturbs."""
    folder = tmp_path_factory.mktemp("jobs") / "unbroken"
    done = predict(pictures, "--shards", folder, *options)
    assert done.returncode == 1  # for the text
    told = f"1 picture of {count(pictures):,} without an answer; the column error says why."
    assert done.stderr.splitlines()[-1] == told  # after a line a minute
    return folder


def count(pictures: Path) -> int:
    return sum(1 for _ in pictures.rglob("*.png"))


def test_a_job_that_is_killed_gives_the_same_parts(
    pictures: Path, unbroken: Path, options: list[object], tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    folder, total = tmp_path / "killed", count(pictures)
    kills = pytestconfig.getoption("--kills")
    chance = random.Random(0)  # noqa: S311 - moments
    for kill, share in enumerate(sorted(chance.uniform(0, 0.95) for _ in range(kills))):
        process = subprocess.Popen(
            command(pictures, "--shards", folder, "--resume", *options), start_new_session=True, stderr=subprocess.PIPE
        )
        while process.poll() is None and journalled(folder) < share * journalled(unbroken):
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.05))
        # All of it, as by the system's end, or the command alone: its workers have to notice.
        (os.killpg if kill % 2 else os.kill)(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        sys.stdout.write(f"kill {kill + 1} at {recorded(folder):,} of {total:,} answers\n")
    assert predict(pictures, "--shards", folder, "--resume", *options).returncode == 1
    assert parts(folder) == parts(unbroken)
    # What a killed process had answered and not recorded is a batch at most, each time in each of them.
    again = recorded(folder) - total
    most = again + kills * (os.cpu_count() or 1) * BATCH
    sys.stdout.write(f"{again} answered again by the journals, at most {most} ({most / total:.2%}) in all\n")
    assert again == 0


def test_a_full_disk_is_one_line_and_the_job_goes_on(
    pictures: Path, unbroken: Path, options: list[object], tmp_path: Path
) -> None:
    folder = tmp_path / "full"
    # A file that may not grow is what a disk without room is: a write fails in its middle.
    most = max(path.stat().st_size for path in (unbroken / ".journal").glob("*.jsonl")) * 2 // 3

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    done = predict(pictures, "--shards", folder, *options, before=limit)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith(f"error: {folder} cannot be written: File too large. Fix that")
    before = recorded(folder)
    assert 0 < before < count(pictures)
    assert predict(pictures, "--shards", folder, "--resume", *options).returncode == 1
    assert parts(folder) == parts(unbroken)
    assert recorded(folder) == count(pictures)


def test_a_service_gives_the_same_answers(
    pictures: Path, unbroken: Path, options: list[object], bundled_service: str, tmp_path: Path
) -> None:
    done = predict(pictures, "--shards", tmp_path / "asked", *options, "--url", bundled_service)
    assert done.returncode == 1, done.stderr
    assert parts(tmp_path / "asked") == parts(unbroken)


@pytest.fixture
def bundled_service(repository: Path) -> Iterator[str]:
    service = DrainingService(repository / "model_store")
    try:
        yield service.url
    finally:
        assert service.stop() == 0


def test_a_job_goes_on_as_it_began(
    pictures: Path, unbroken: Path, options: list[object], repository: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(unbroken, tmp_path / "copy")
    store = {"IMAGECLASS_MODEL_STORE": str(repository / "model_store"), "COLUMNS": "200"}

    def again(*others: object) -> str:
        words = ["predict", pictures, "--shards", folder, "--resume", *options, *others]
        return CliRunner().invoke(cli, [str(word) for word in words], env=store).stderr

    assert "begun with --output parquet, not with --output csv" in again("--output", "csv")
    assert "begun with no --top-k, not with --top-k 2" in again("--top-k", 2)
    assert "begun with --model mnist, not with --model cats" in again("--model", "cats")
    # Copied, the pictures' stamps are as they were: nothing is answered, and no process begins.
    assert f"{count(pictures):,} pictures of {count(pictures):,} are done already" in again()
    assert parts(folder) == parts(unbroken)


def test_a_worker_that_is_killed_is_one_line(pictures: Path, options: list[object], tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    with subprocess.Popen(command(pictures, "--shards", folder, *options), stderr=subprocess.PIPE, text=True) as job:
        while not (workers := _workers_of(job.pid)) or not journalled(folder):
            time.sleep(0.005)
        os.kill(workers[0], signal.SIGKILL)
        _, said = job.communicate(timeout=60)
    assert (job.returncode, said.count("\n")) == (1, 1), said
    assert said.startswith("error: A worker process was killed")


def test_ctrl_c_ends_it_quietly(pictures: Path, options: list[object], tmp_path: Path) -> None:
    folder = tmp_path / "interrupted"
    with subprocess.Popen(
        command(pictures, "--shards", folder, *options), stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as job:
        while not journalled(folder):
            time.sleep(0.005)
        os.killpg(job.pid, signal.SIGINT)
        _, said = job.communicate(timeout=60)
    assert (job.returncode, said) == (130, "")


def test_ctrl_c_ends_it_quietly_while_workers_still_start(
    pictures: Path, options: list[object], tmp_path: Path
) -> None:
    folder = tmp_path / "interrupted"
    with subprocess.Popen(
        command(pictures, "--shards", folder, *options), stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as job:
        while not _workers_of(job.pid):
            time.sleep(0.005)
        for _ in range(20):  # at each point of its imports, which take half a second
            for worker in _workers_of(job.pid):
                os.kill(worker, signal.SIGINT)
            time.sleep(0.02)
        os.killpg(job.pid, signal.SIGINT)
        _, said = job.communicate(timeout=60)
    assert (job.returncode, said) == (130, "")


def _workers_of(process: int) -> list[int]:
    """The processes of a job that have a model, in the order of their start."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(each) for each in children if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output", "parquet"], "--output parquet needs a folder for the part files"),
        (["--resume"], "--resume needs a folder for the part files"),
        (["--shards", "out"], "with --shards, the format is parquet, csv or jsonl"),
        (["--shards", "out", "--output", "csv", "--files-from", "-"], "give a file, not -"),
        (
            ["--shards", "out", "--output", "csv", "--features", "--url", "http://localhost:1"],
            "cannot be combined with --url",
        ),
        (["--shards", "out", "--output", "csv", "--features", "--set", "0.1"], "or other options"),
        (["--details", "age"], "'age' is not one of familiarity, neighbours"),
        (["--details", "neighbours"], "they need --output jsonl"),
        (["--set", "1"], "a share of pictures between 0 and 1"),
        (["--false-alarms", "0"], "a share of pictures between 0 and 1"),
    ],
)
def test_wrong_usage_is_exit_2(arguments: list[str], words: str, data_folder: Path) -> None:
    seven = str(data_folder / "7-00000.png")
    done = CliRunner().invoke(cli, ["predict", seven, *arguments], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert done.exit_code == 2
    assert words in done.stderr


def test_a_model_without_features_says_so_and_leaves_the_folder_free(
    data_folder: Path, repository: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(
        cli,
        ["predict", str(data_folder / "7-00000.png"), "--shards", str(out), "--output", "csv", "--features"],
        env={"IMAGECLASS_MODEL_STORE": str(repository / "tests" / "data" / "bundles"), "IMAGECLASS_MODEL": "mnist"},
    )
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "mnist version 1 has no output 'features'" in done.stderr
    with held(out, resume=False):
        pass


def test_what_is_said_of_answers_is_what_a_service_says(repository: Path) -> None:
    bundle = open_bundle(repository / "model_store" / "mnist" / "1")
    options = AnswerOptions(min_probability=0.5, false_alarms=0.05, set=0.01)
    rows = ModelHere.of(Settings(), bundle, options, features=False).open()(bundle.golden.encoded)
    judge, classes = Judge(bundle, AnswerSettings()), len(bundle.manifest.labels)
    engine = open_engine("openvino", bundle.path, bundle.manifest.signature, threads=1)
    assert isinstance(engine, GivesOutputs)
    features = engine.outputs(bundle.golden.images)["features"]
    for row, of_network in zip(rows, features, strict=True):
        assert not isinstance(row, Failure)
        found = judge.judge(row[:classes], of_network, options)
        np.testing.assert_array_equal(row, row_of(row[:classes], options, found.decision, found.set))
    with pytest.raises(MalformedRequest, match="too low for this model"):
        ModelHere.of(Settings(), bundle, AnswerOptions(set=1e-6), features=False)


def test_worker_processes_are_gone_when_their_crew_is(repository: Path, tmp_path: Path) -> None:
    """Else the exit of the command can write into a pipe that is closed by then, and ends with a traceback."""
    bundle = open_bundle(repository / "model_store" / "mnist" / "1")
    model = ModelHere.of(Settings(), bundle, AnswerOptions(), features=False)
    (tmp_path / ".journal").mkdir()
    reference = ModelReference(bundle.name, bundle.version)
    layout = Layout("jsonl", reference, bundle.manifest.labels, AnswerOptions(), features=False)
    with processes(model, Target(tmp_path, layout, 1_000_000), Signals.new(), 1) as pool:
        assert pool.submit(Shard(0, ())).result(timeout=60).failed == 0
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("output", ["parquet", "csv", "jsonl"])
def test_features_are_those_of_the_network(output: PartFormat, repository: Path, tmp_path: Path) -> None:
    bundle = open_bundle(repository / "tests" / "data" / "bundles" / "clothes" / "1")
    check_has_features(bundle)
    classify = ModelHere.of(Settings(), bundle, AnswerOptions(), features=True).open()
    engine = open_engine("tensorflow", bundle.path, bundle.manifest.signature, threads=1)
    assert isinstance(engine, GivesOutputs)
    expected = engine.outputs(bundle.golden.images)["features"]
    names = [*bundle.golden.names, "bad"]
    answers = answers_to(
        [Picture(name, data) for name, data in zip(names, [*bundle.golden.encoded, b"bad"], strict=True)], classify
    )
    stream = io.BytesIO()
    reference = ModelReference(bundle.name, bundle.version)
    Layout(output, reference, bundle.manifest.labels, AnswerOptions(), features=True).write(answers, stream)
    if output == "parquet":
        rows = pq.read_table(io.BytesIO(stream.getvalue())).to_pylist()
        found = [row["features"] for row in rows]
    elif output == "jsonl":
        rows = [json.loads(line) for line in stream.getvalue().splitlines()]
        found = [row.get("features") for row in rows]
    else:
        rows = list(csv.DictReader(io.StringIO(stream.getvalue().decode())))
        columns = [f"feature_{index}" for index in range(expected.shape[1])]
        found = [[float(row[column]) for column in columns] for row in rows[:-1]]
    assert [row["file"] for row in rows] == names
    np.testing.assert_allclose(found[: len(expected)], expected, atol=2e-4, rtol=1e-3)
    assert rows[-1]["code"] == "unsupported_format"


def test_the_commands_of_the_page_run_as_they_stand_there(repository: Path, data_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for path in sorted(data_folder.glob("7-*.png")):
        shutil.copy(path, tmp_path / "pictures")
    paths = {"PYTHONPATH": str(repository), "IMAGECLASS_MODEL_STORE": str(repository / "model_store")}
    with opened("docs/how-to/bulk-jobs.md") as page:
        [predict] = page.commands()
        run(predict, tmp_path, **paths)
        read = run_program(page.block("python"), tmp_path)
    assert read.startswith(f"{len(list(data_folder.glob('7-*.png')))} [")


def test_without_pyarrow_a_line_says_what_installs_it(
    data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    seven, out = str(data_folder / "7-00000.png"), tmp_path / "out"
    done = CliRunner().invoke(cli, ["predict", seven, "--shards", str(out), "--output", "parquet"])
    words = "run `pip install '.[parquet]'`. CSV and JSON lines need no package."
    assert (done.exit_code, done.stderr) == (
        1,
        f"error: Parquet needs pyarrow, which is not installed: {words}\n",
    )
    assert not out.exists()
