"""Nothing phones home: a process that loads and serves a model calls nobody, and leaves nothing in the user's home."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

WATCHED = """
import asyncio, json, sys
from pathlib import Path

seen = []

def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto", "os.fork", "os.posix_spawn"):
        seen.append(f"{event} {args[0 if event == 'socket.getaddrinfo' else 1 :]!r}")  # not the socket
    elif event == "subprocess.Popen" and args[1][0] not in ("uname", "fc-list"):  # TensorFlow's, and Matplotlib's
        seen.append(f"{event} {args[1]!r}")

sys.addaudithook(watch)

import httpx
from app.api.lifecycle import Lifecycle
from app.main import worker_app
from app.metrics import Metrics
from app.settings import Settings

async def serve():
    settings = Settings(model_store=Path(sys.argv[1]), engine=sys.argv[2])
    app = worker_app(settings, Metrics(), Lifecycle())
    async with app.router.lifespan_context(app), httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://service"
    ) as client:
        picture = Path(sys.argv[3]).read_bytes()
        answer = await client.post("/predict", content=picture, headers={"content-type": "image/png"})
        assert answer.status_code == 200, answer.text
        await asyncio.sleep(float(sys.argv[4]))

asyncio.run(serve())
print(json.dumps(seen))
"""

CONTROL = """
import json, socket, subprocess, sys
seen = []
sys.addaudithook(lambda event, args: seen.append(event))
with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
    sock.connect_ex(("127.0.0.1", 9))
subprocess.run(["true"])
assert {"socket.connect", "subprocess.Popen"} <= set(seen), seen
"""


def environment(home: Path) -> dict[str, str]:
    """One in which nothing but our own code can be why a library keeps quiet: no CI, no opt-out, an empty home."""
    kept = {
        name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH", "LANG", "LD_LIBRARY_PATH")
    }
    return {**kept, "HOME": str(home)}


Watch = Callable[..., list[str]]


@pytest.fixture
def watch(trained_store: Path, data_folder: Path, tmp_path: Path, repository: Path) -> Watch:
    """Return the function that runs a process which serves, and tells whom it called."""

    def run(engine: str = "openvino", **variables: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", WATCHED, str(trained_store), engine, str(data_folder / "7-00000.png"), "1"],
            cwd=repository,
            env=environment(tmp_path) | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        seen: list[str] = json.loads(done.stdout.splitlines()[-1])
        return seen

    return run


@pytest.mark.parametrize("engine", ["openvino", pytest.param("tensorflow", marks=pytest.mark.slow)])
def test_a_process_that_serves_reports_to_nobody(watch: Watch, tmp_path: Path, engine: str) -> None:
    assert watch(engine) == []
    if engine == "openvino":  # TensorFlow brings Keras and Matplotlib, which keep settings of their own there
        assert list(tmp_path.iterdir()) == []


def test_traces_go_to_the_collector_that_is_asked_for_and_to_nobody_else(watch: Watch) -> None:
    seen = watch(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9", OTEL_BSP_SCHEDULE_DELAY="50")
    assert {call for call in seen if "socket.connect" in call} == {"socket.connect (('127.0.0.1', 9),)"}
    assert {call.partition(" ")[0] for call in seen} <= {"socket.connect", "socket.getaddrinfo"}
    assert all("127.0.0.1" in call for call in seen)


def test_the_watch_sees_what_it_watches_for(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CONTROL], env=environment(tmp_path), timeout=60, check=False)
    assert done.returncode == 0


def test_openvino_would_report_if_it_were_let(tmp_path: Path) -> None:
    """When this fails, OpenVINO's reports have ended, or moved to where `_NOT_IMPORTED` does not stop them."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, openvino; print('openvino_telemetry' in sys.modules)"],
        env={**environment(tmp_path), "CI": "true"},  # so that it does not do it here
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "True\n"
