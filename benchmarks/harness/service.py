"""Run a contestant, from its start to the end of its last process."""

import contextlib
import http.client
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.contract.bundle import read_manifest
from benchmarks.harness.contestant import Contestant
from benchmarks.harness.errors import DidNotStart
from benchmarks.harness.processes import ProcessTree
from benchmarks.harness.protocol_requests import label_in, requests_by
from benchmarks.harness.workload import WORK, Workload

HOST = "127.0.0.1"
_START_TIMEOUT_S = 180.0
_REFUSAL_TIMEOUT_S = 60.0  # since the first answer that was not 200: some routers listen before their models do
_ANSWER_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Service:
    port: int
    spare_port: int
    """The addresses of a contestant that has two protocols."""
    tree: ProcessTree
    start_s: float
    """Seconds from the start of the process to its first answer 200."""
    labels: tuple[str, ...]
    """Its answer to each picture."""


@contextmanager
def running(contestant: Contestant, workload: Workload) -> Iterator[Service]:
    """Start a contestant, wait for its first answer, and always stop all its processes at the end.

    Raises NotBuilt or DidNotStart.
    """
    python = contestant.prepare()
    port, spare_port = free_ports()
    log = WORK / "logs" / f"{workload.name}-{contestant.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            contestant.command(python, port, workload),
            cwd=contestant.folder(),
            env=contestant.process_environment(port, spare_port, workload),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        tree = ProcessTree(process.pid)
        try:
            requests = requests_by(contestant.protocol, workload, path=contestant.path)
            _wait_for_answer(process, port, requests[0].read_bytes(), log)
            start_s = time.monotonic() - began
            names = read_manifest(workload.bundle).labels
            labels = tuple(_label(ask(port, request.read_bytes()), names) for request in requests)
            yield Service(port, spare_port, tree, start_s, labels)
        finally:
            tree.stop()
            process.wait()


def ask(port: int, request: bytes) -> tuple[int, bytes]:
    """Send a whole request over a connection of its own and return status and body."""
    with socket.create_connection((HOST, port), timeout=_ANSWER_TIMEOUT_S) as connection:
        connection.sendall(request)
        with contextlib.closing(http.client.HTTPResponse(connection, method="POST")) as response:
            response.begin()
            return response.status, response.read()


def _wait_for_answer(process: subprocess.Popen[bytes], port: int, request: bytes, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    refused_since: float | None = None
    last = "nothing listened"
    while (now := time.monotonic()) < min(deadline, (refused_since or now) + _REFUSAL_TIMEOUT_S):
        if (code := process.poll()) is not None:
            raise DidNotStart(f"ended with exit code {code}: {_complaint(log)}")
        try:
            status, body = ask(port, request)
        except (OSError, http.client.HTTPException) as exc:
            last = str(exc) or type(exc).__name__
        else:
            if status == http.HTTPStatus.OK:
                return
            refused_since = refused_since or now
            last = f"it answers {status} {body[:200]!r}"
        time.sleep(0.01)
    raise DidNotStart(f"no answer 200 in time ({last}): {_complaint(log)}")


def _label(answer: tuple[int, bytes], labels: Sequence[str]) -> str:
    status, body = answer
    return label_in(body, labels) if status == http.HTTPStatus.OK else f"status {status}"


def free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind((HOST, 0))
        second.bind((HOST, 0))
        return first.getsockname()[1], second.getsockname()[1]


def _complaint(log: Path) -> str:
    """Return the last line that mentions an error, else the last line."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["it wrote nothing"])[-1][:300]
