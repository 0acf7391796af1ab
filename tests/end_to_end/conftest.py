import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.contract.location import BucketAddress
from tests.conftest import lack
from tests.end_to_end.compose import why_no_engine

_START_TIMEOUT_S = 120


class Service:
    """A real `python -m app serve` with real sockets, on a port of its own choosing; one worker if none is set.

    `run_by` is the command that runs it, such as `timeout 600`; signals are then sent to that.
    """

    def __init__(
        self, store: Path | BucketAddress, *, module: str = "app", run_by: Sequence[str] = (), **settings: Any
    ) -> None:
        given = self.settings = {"workers": 1, **settings}
        variables = {f"IMAGECLASS_{name.upper()}": str(value) for name, value in given.items()}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("IMAGECLASS_")}
        environment |= {"IMAGECLASS_PORT": "0", "IMAGECLASS_MODEL_STORE": str(store), **variables}
        self.process = subprocess.Popen(
            [*run_by, sys.executable, "-m", module, "serve"], env=environment, stderr=subprocess.PIPE, text=True
        )
        self.log: list[dict[str, Any]] = []
        self.url = ""

    def wait_until_ready(self, workers: int = 1) -> None:
        """Read the log until every worker is ready. The test's own timeout is the log's end."""
        ready = 0
        while ready < workers:
            line = self.next_line()
            if line.get("event") == "starting":
                self.url = line["url"]
            ready += line.get("event") == "ready"
        assert httpx.get(f"{self.url}/health/live").status_code == 200

    def wait_for(self, event: str, **fields: Any) -> dict[str, Any]:
        """Read the log until a line of that event with those fields, and return it."""
        return self.wait_for_all(event, count=1, **fields)[0]

    def wait_for_all(self, event: str, *, count: int, within_s: float = 120, **fields: Any) -> list[dict[str, Any]]:
        """Read the log until `count` lines of the event have these fields, and return them."""
        # The service ends with the patience, and its log with it: no test waits for ever.
        patience = threading.Timer(within_s, self.process.kill)
        patience.start()
        try:
            found: list[dict[str, Any]] = []
            while len(found) < count:
                line = self.next_line()
                if line["event"] == event and fields.items() <= line.items():
                    found.append(line)
        finally:
            patience.cancel()
        return found

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        """Send the signal and return the exit code; the rest of the log is kept."""
        self.process.send_signal(with_signal)
        return self.wait()

    def wait(self) -> int:
        _, rest = self.process.communicate(timeout=_START_TIMEOUT_S)
        self.log += [_parse(line) for line in rest.splitlines()]
        assert_nothing_leaked(self.log)
        return self.process.returncode

    @property
    def workers(self) -> dict[int, int]:
        """The process of each worker that is ready, as the log has it."""
        return {line["worker"]: line["process"] for line in self.log if line["event"] == "ready"}

    def next_line(self) -> dict[str, Any]:
        assert self.process.stderr is not None
        text = self.process.stderr.readline()
        assert text, f"the service ended early: {self.log}"
        self.log.append(_parse(text))
        return self.log[-1]


def assert_nothing_leaked(log: Iterable[dict[str, Any]]) -> None:
    """Fail if a worker had to take back what an ended request still held."""
    assert [line for line in log if line.get("reason") == "places were not released"] == []


def _parse(text: str) -> dict[str, Any]:
    """Return a log line. What is no JSON object on one line fails the test: no traceback, no stray print."""
    line: dict[str, Any] = json.loads(text)
    return line


StartService = Callable[..., Service]


@pytest.fixture
def start_service() -> Iterator[StartService]:
    services: list[Service] = []

    def start(store: Path | BucketAddress, *, wait: bool = True, **settings: Any) -> Service:
        service = Service(store, **settings)
        services.append(service)
        if wait:
            service.wait_until_ready(int(settings.get("workers", 1)))
        return service

    yield start
    for service in services:
        if service.process.poll() is None:
            service.process.terminate()
            try:
                service.wait()
            except subprocess.TimeoutExpired:
                service.process.kill()
                service.process.communicate()
        if service.process.stderr is not None:
            service.process.stderr.close()


@pytest.fixture(scope="session")
def client_python(pytestconfig: pytest.Config) -> Path:
    """The Python of the environment that `make setup-clients` fills with public clients."""
    python = Path(pytestconfig.getoption("--clients")) / "bin" / "python"
    if not python.exists():
        lack(f"{python} is not there: run `make setup-clients`")
    return python


@pytest.fixture(scope="session")
def node_clients(repository: Path) -> Path:
    """The folder of node's public clients that `make setup-clients` fills."""
    folder = repository / "tests" / "clients" / "node"
    if not (folder / "node_modules").exists():
        lack(f"{folder / 'node_modules'} is not there: run `make setup-clients`; it needs npm")
    return folder


@pytest.fixture(scope="session")
def engine() -> None:
    """A Docker engine with Compose."""
    if reason := why_no_engine():
        pytest.skip(f"no Docker engine: {reason}")
