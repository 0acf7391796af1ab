"""Train presets and the tutorial's own script in turn, each in a process of its own, and compare accuracy and time.

Accuracy is on the test pictures, which are used for no choice: each run uses them once, after its training. The time to
an accuracy is measured on pictures held out of the training ones.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scipy.stats import t as student

from benchmarks.harness.errors import BenchmarkError
from benchmarks.harness.machine import Machine
from benchmarks.harness.table import NONE, table

TUTORIAL = "tutorial"
TO = "-to-"
"""Between a name and a percentage: trained until this accuracy on pictures held out of the training ones."""
CONTESTANTS = (TUTORIAL, "seed", "quick", "tiny", "compact", "accurate", "tutorial-to-99", "quick-to-99")


@dataclass(frozen=True)
class Run:
    """One training. `seconds` and `epochs` (seconds of each) are wall-clock time, `cpu_seconds` that of all threads.

    `load` is the machine's at the start: under load, seconds mean nothing.
    """

    name: str
    seed: int
    accuracy: float
    parameters: int
    seconds: float
    cpu_seconds: float
    epochs: tuple[float, ...]
    load: float


@dataclass(frozen=True)
class Summary:
    """The mean of a preset's runs, and half the width of its 95 % interval (Student's t over the seeds)."""

    name: str
    runs: int
    accuracy: float
    margin: float | None
    least: float
    parameters: int
    seconds: float
    ratio: float | None
    cpu_seconds: float
    epoch: float


def train_once(name: str, *, seed: int, mnist: Path) -> Run:
    """Train once in a new process. Raises BenchmarkError with its output if it fails."""
    load = os.getloadavg()[0]
    words = [sys.executable, "-m", "benchmarks.training.accuracy_run", name, str(seed), str(mnist)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"The training of {name} with seed {seed} failed: {done.stderr.strip()[-500:]}")
    return Run(**json.loads(done.stdout.splitlines()[-1]) | {"load": round(load, 2)})


def summarize(runs: Sequence[Run]) -> list[Summary]:
    """Return a summary for each name, in the order in which they first ran."""
    tutorial = [run.seconds for run in runs if run.name == TUTORIAL]
    baseline = sum(tutorial) / len(tutorial) if tutorial else None
    return [
        _summary([run for run in runs if run.name == name], baseline)
        for name in dict.fromkeys(run.name for run in runs)
    ]


def line(run: Run) -> str:
    """Return one run as a line of progress."""
    return f"{run.name}, seed {run.seed}: {run.accuracy:.2%} in {run.seconds:.1f} s ({run.cpu_seconds:.0f} s of CPU)"


def write(runs: Sequence[Run], out: Path, *, command: str, machine: Machine) -> None:
    """Write every run to accuracy.json, and the table to accuracy.md."""
    record = {"command": command, "machine": asdict(machine), "runs": [asdict(run) for run in runs]}
    (out / "accuracy.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    note = f"`{command}` on {machine.cpu}, {machine.cores} cores, at {machine.commit}"
    (out / "accuracy.md").write_text(markdown(summarize(runs), [note]), encoding="utf-8")


def mean_and_margin(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean, and half the width of its 95 % interval by Student's t; None for a single value."""
    count = len(values)
    mean = sum(values) / count
    if count == 1:
        return mean, None
    deviation = (sum((value - mean) ** 2 for value in values) / (count - 1)) ** 0.5
    return mean, float(student.ppf(0.975, count - 1)) * deviation / count**0.5


def _summary(runs: Sequence[Run], baseline: float | None) -> Summary:
    count = len(runs)
    accuracy, margin = mean_and_margin([run.accuracy for run in runs])
    seconds = sum(run.seconds for run in runs) / count
    # The first epoch includes the tracing.
    later = [seconds for run in runs for seconds in run.epochs[1:]]
    return Summary(
        name=runs[0].name,
        runs=count,
        accuracy=accuracy,
        margin=margin,
        least=min(run.accuracy for run in runs),
        parameters=runs[0].parameters,
        seconds=seconds,
        ratio=None if baseline is None else seconds / baseline,
        cpu_seconds=sum(run.cpu_seconds for run in runs) / count,
        epoch=sum(later) / len(later) if later else runs[0].epochs[0],
    )


def markdown(summaries: Sequence[Summary], notes: Sequence[str]) -> str:
    header = ["trained", "runs", "accuracy, %", "least", "parameters", "s", "× tutorial", "CPU s", "s an epoch"]
    rows = [
        [
            each.name,
            str(each.runs),
            f"{each.accuracy:.3%}"[:-1] + ("" if each.margin is None else f" ± {each.margin:.3%}"[:-1]),
            f"{each.least:.2%}"[:-1],
            f"{each.parameters:,}",
            f"{each.seconds:.1f}",
            NONE if each.ratio is None else f"{each.ratio:.2f}",
            f"{each.cpu_seconds:.0f}",
            f"{each.epoch:.2f}",
        ]
        for each in summaries
    ]
    return "\n\n".join([table(header, rows), *notes]) + "\n"
