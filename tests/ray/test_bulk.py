"""`predict --engine ray`: the parts of one machine, whatever becomes of its workers and nodes on the way."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.end_to_end.pages import opened, run
from tests.ray.conftest import TwoNodes, processes_with

pytest.importorskip("ray", reason="Ray is not installed here: make test-ray runs these tests")
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # warnings are of Ray's own code

_PICTURES = 8000
_SHARD = 200


def predict(pictures: Path, parts: Path, *more: str) -> list[str]:
    options = ("--shards", str(parts), "--output", "jsonl", "--shard-size", str(_SHARD))
    return [sys.executable, "-m", "app", "predict", str(pictures), *options, "--model-store", "model_store", *more]


def rows(parts: Path) -> list[dict[str, object]]:
    return [json.loads(line) for part in sorted(parts.glob("part-*")) for line in part.read_bytes().splitlines()]


def written(parts: Path) -> int:
    return sum(1 for _ in parts.glob("part-*"))


def wait_until(true: Callable[[], bool], running: subprocess.Popen[bytes]) -> None:
    while not true():
        assert running.poll() is None, "it ended before"
        time.sleep(0.05)


def workers() -> list[int]:
    """Return the processes that work on shards."""
    ours = processes_with("RAY_AUTH_TOKEN", os.environ["RAY_AUTH_TOKEN"])
    return [each for each in ours if Path(f"/proc/{each}/cmdline").read_bytes().startswith(b"ray::_work_there")]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    numbers = np.random.default_rng(1)
    for number in range(_PICTURES):
        digit = numbers.integers(0, 256, (28, 28), np.uint8)
        (folder / f"{number:05}.png").write_bytes(cv2.imencode(".png", digit)[1].tobytes())
    (folder / "bad.png").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def expected(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """What one machine writes."""
    parts = tmp_path_factory.mktemp("here") / "parts"
    subprocess.run(predict(pictures, parts), check=False)
    return rows(parts)


def test_a_worker_and_a_node_are_killed_and_every_row_is_there_once(
    two_nodes: TwoNodes, pictures: Path, expected: list[dict[str, object]], tmp_path: Path
) -> None:
    two_nodes.add_node()
    parts = tmp_path / "parts"
    running = subprocess.Popen(predict(pictures, parts, "--engine", "ray", "--address", two_nodes.address))
    wait_until(lambda: written(parts) >= 4, running)
    killed = workers()[0]
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: written(parts) >= 10, running)
    two_nodes.kill_node()
    lost_at = written(parts)
    assert running.wait(timeout=180) == 1  # one picture has no answer
    found = rows(parts)
    print(f"{len(found):,} rows in {written(parts)} parts; a worker was killed at 4, a node at {lost_at}")
    assert len(expected) == _PICTURES + 1
    assert found == expected


def test_without_a_cluster_it_says_what_to_do(pictures: Path, tmp_path: Path) -> None:
    command = predict(pictures, tmp_path / "parts", "--engine", "ray", "--address", "127.0.0.1:1")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: No Ray cluster answers at 127.0.0.1:1. Start one with `ray start --head`."
    )


def test_the_commands_of_the_guide_write_the_parts_of_one_machine(
    two_nodes: TwoNodes, shell: dict[str, str], data_folder: Path, repository: Path, tmp_path: Path
) -> None:
    def parts(folder: str) -> dict[str, bytes]:
        return {part.name: part.read_bytes() for part in (tmp_path / folder).glob("part-*")}

    def options(command: str) -> str:
        return shlex.join([*shlex.split(command, comments=True), "--shard-size", "30"])

    for name in (".venv-ray", "model_store"):
        (tmp_path / name).symlink_to(repository / name)
    shutil.copytree(data_folder, tmp_path / "pictures", ignore=lambda _, names: {n for n in names if n[1:2] != "-"})
    shell["PYTHONPATH"] = str(repository)
    run(options("python -m app predict pictures/ --shards here/ --output parquet"), tmp_path, **shell)
    with opened("docs/how-to/bulk-jobs-on-ray.md") as page:
        on_this_machine, on_the_cluster = map(options, page.commands())
    run(on_this_machine, tmp_path, **shell)
    assert len(parts("here")) >= 3
    assert parts("out") == parts("here")
    (tmp_path / "out" / max(parts("out"))).unlink()
    run(on_the_cluster, tmp_path, **shell, **two_nodes.variables)
    assert parts("out") == parts("here")
