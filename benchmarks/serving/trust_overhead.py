"""Measure the CPU time of requests with and without trust figures, and with a bundle that has no trust.npz."""

import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from app.contract.bundle import Bundle
from app.contract.trust import TRUST
from benchmarks.harness.errors import DidNotStart
from benchmarks.harness.processes import ProcessTree
from benchmarks.harness.service import free_ports
from benchmarks.harness.table import table

_PATHS = {
    "unasked": "/predict",
    "familiarity": "/predict?details=familiarity",
    "neighbours": "/predict?details=neighbours",
    "a set": "/predict?set=0.1",
}
_BASELINE = "no trust.npz"
_PATIENCE_S = 120


def measure(bundle: Bundle, pictures: Sequence[bytes], *, rounds: int, requests: int) -> str:
    """Return a table in Markdown: the CPU time of a request by what it asks for, in turns, one at a time.

    Raises DidNotStart.
    """
    with TemporaryDirectory() as place, ExitStack() as stack:
        stores = {_BASELINE: _without_trust(bundle, Path(place)), "asked": bundle.path.parents[1]}
        services = {name: stack.enter_context(_serving(store, bundle.name)) for name, store in stores.items()}
        kinds = {_BASELINE: (services[_BASELINE], "/predict")} | {
            name: (services["asked"], path) for name, path in _PATHS.items()
        }
        found: dict[str, list[float]] = {name: [] for name in kinds}
        for service, path in kinds.values():
            service.cpu_us(path, pictures, min(requests, 20))  # proves outputs, and warms up
        for number in range(rounds):
            for name in list(kinds) if number % 2 else reversed(kinds):
                service, path = kinds[name]
                found[name].append(service.cpu_us(path, pictures, requests))
            print(", ".join(f"{name} {values[-1]:,.0f} µs" for name, values in found.items()), flush=True)
    rows = []
    for name, values in found.items():
        costs = sorted(each / plain - 1 for each, plain in zip(values, found["unasked"], strict=True))
        rows.append(
            [name, f"{median(values):,.0f} µs", f"{median(costs):+.1%}", f"{costs[0]:+.1%} to {costs[-1]:+.1%}"]
        )
    return table(["request", "CPU time", "against unasked", f"{rounds} rounds of {requests:,}"], rows)


class _Service:
    def __init__(self, port: int, tree: ProcessTree) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._tree = tree

    def cpu_us(self, path: str, pictures: Sequence[bytes], requests: int) -> float:
        before = self._cpu_ns()
        for number in range(requests):
            self._connection.request("POST", path, pictures[number % len(pictures)], {"Content-Type": "image/*"})
            answer = self._connection.getresponse()
            said = answer.read()
            if answer.status != http.client.OK:
                raise DidNotStart(f"{path} answered {answer.status}: {said.decode()}")
        return (self._cpu_ns() - before) / requests / 1e3

    def _cpu_ns(self) -> int:
        threads = [file for pid in self._tree.pids() for file in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        return sum(int(file.read_text().split()[0]) for file in threads)


@contextmanager
def _serving(store: Path, model: str) -> Iterator[_Service]:
    port, _ = free_ports()
    command = [sys.executable, "-m", "app", "serve", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--model-store", str(store), "--model", model, "--workers", "1", "--log-level", "error"],
        env={**os.environ, "IMAGECLASS_INFERENCE_THREADS": "1", "IMAGECLASS_RELOAD_INTERVAL_S": "0"},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    tree = ProcessTree(process.pid)
    try:
        _wait(process, port)
        yield _Service(port, tree)
    finally:
        tree.stop()
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    until = time.monotonic() + _PATIENCE_S
    while process.poll() is None and time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == http.client.OK:
                return
        except OSError:
            time.sleep(0.2)
        finally:
            connection.close()
    raise DidNotStart(f"The service on port {port} does not answer.")


def _without_trust(bundle: Bundle, place: Path) -> Path:
    copy = place / bundle.name / str(bundle.version)
    shutil.copytree(bundle.path, copy)
    (copy / TRUST).unlink(missing_ok=True)
    manifest = json.loads((copy / "manifest.json").read_bytes())
    manifest["files"].pop(TRUST, None)
    manifest.pop("false_alarms", None)
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return place
