"""Train on a folder of photos by `fit` and by what people do without it, in turn, each in a process of its own.

`fit` starts with an empty cache, as it does for a new user, and its time is that of the whole command, with export and
every check. Accuracy is on the test pictures, which are used for no choice.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.machine import Machine
from benchmarks.harness.table import table
from benchmarks.training.accuracy import mean_and_margin
from benchmarks.training.photo_baselines import BASELINES

EFFORTS = {"fit-quick": "quick", "fit": "standard"}
CONTESTANTS = (*EFFORTS, *BASELINES)


@dataclass(frozen=True)
class Run:
    """One training. `seconds` is wall-clock time of the whole process, `cpu_seconds` that of all its threads.

    `load` is the machine's at the start: under load, seconds mean nothing.
    """

    name: str
    seed: int
    accuracy: float
    seconds: float
    cpu_seconds: float
    load: float


def train_once(name: str, *, seed: int, data: str, per_class: int | None = None) -> Run:
    """Train once in a new process, on `per_class` photos of each class drawn by the seed if it is given.

    Raises BenchmarkError if there are too few pictures, or with the end of the training's output if that fails.
    """
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        if per_class is not None:
            data = str(_draw(Path(data), Path(scratch, "photos"), per_class, seed))
        store = Path(scratch, "store")
        if name in EFFORTS:
            words = f"training fit --effort {EFFORTS[name]} --name photos --seed {seed}".split()
            words += ["--data", data, "--model-store", str(store)]
        else:
            words = ["benchmarks.training.photo_baselines", name, str(seed), data]
        started, cpu = time.monotonic(), _cpu_seconds()
        environment = os.environ | {"XDG_CACHE_HOME": scratch}
        done = subprocess.run(
            [sys.executable, "-m", *words], env=environment, capture_output=True, text=True, check=False
        )
        seconds, cpu = time.monotonic() - started, _cpu_seconds() - cpu
        if done.returncode:
            raise BenchmarkError(f"The training of {name} with seed {seed} failed: {done.stderr.strip()[-500:]}")
        if name in EFFORTS:
            metrics = json.loads((store / "photos" / "1" / "metrics.json").read_text(encoding="utf-8"))
            accuracy = metrics["test"]["accuracy"]
        else:
            accuracy = json.loads(done.stdout.splitlines()[-1])["accuracy"]
    return Run(name, seed, accuracy, round(seconds, 1), round(cpu, 1), round(load, 2))


def _draw(data: Path, to: Path, per_class: int, seed: int) -> Path:
    """Copy the folder test/, and this many photos of each folder of train/; no other picture is for validation."""
    classes = sorted(folder for folder in Path(data, "train").glob("*") if folder.is_dir())
    if not classes or not Path(data, "test").is_dir():
        raise BenchmarkError(f"{data} has no folders train/ and test/ to draw photos of each class from.")
    shutil.copytree(data / "test", to / "test")
    chance = np.random.default_rng(seed)
    for folder in classes:
        photos = sorted(path for path in folder.iterdir() if path.is_file())
        if len(photos) < per_class:
            raise BenchmarkError(f"{folder} has {len(photos)} photos, fewer than {per_class}.")
        (to / "train" / folder.name).mkdir(parents=True)
        for photo in chance.choice(len(photos), per_class, replace=False):
            shutil.copy(photos[photo], to / "train" / folder.name)
    return to


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def line(run: Run) -> str:
    """Return one run as a line of progress."""
    return f"{run.name}, seed {run.seed}: {run.accuracy:.2%} in {run.seconds:.0f} s ({run.cpu_seconds:.0f} s of CPU)"


def markdown(runs: Sequence[Run], notes: Sequence[str]) -> str:
    """Return a row for each contestant: mean accuracy with its interval, least, wall-clock and CPU seconds."""
    rows = []
    for name in dict.fromkeys(run.name for run in runs):
        of = [run for run in runs if run.name == name]
        accuracy, margin = mean_and_margin([run.accuracy for run in of])
        rows.append(
            [
                name,
                str(len(of)),
                f"{100 * accuracy:.2f}" + ("" if margin is None else f" ± {100 * margin:.2f}"),
                f"{100 * min(run.accuracy for run in of):.2f}",
                f"{mean_and_margin([run.seconds for run in of])[0]:.0f}",
                f"{mean_and_margin([run.cpu_seconds for run in of])[0]:.0f}",
            ]
        )
    return "\n\n".join([table(["trained", "runs", "test accuracy, %", "least", "s", "CPU s"], rows), *notes]) + "\n"


def write(runs: Sequence[Run], out: Path, *, command: str, machine: Machine) -> None:
    """Write every run to photos.json, and the table to photos.md."""
    record = {"command": command, "machine": asdict(machine), "runs": [asdict(run) for run in runs]}
    (out / "photos.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    note = f"`{command}` on {machine.cpu}, {machine.cores} cores, at {machine.commit}"
    (out / "photos.md").write_text(markdown(runs, [note]), encoding="utf-8")
