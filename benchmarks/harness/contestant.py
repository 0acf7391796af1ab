"""The contestants: how each is started, and its differences from the others.

contestants/<name>/ describes a peer's tuning, with links to its documentation.
"""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from app.engines.registry import EngineName
from benchmarks.harness.environment import python_of
from benchmarks.harness.machine import has_bf16
from benchmarks.harness.protocol_requests import ProtocolName
from benchmarks.harness.workload import HERE, WORK, Workload

Group = Literal["ours", "peer", "tutorial", "ceiling"]
Precision = Literal["f32", "auto"]
BASELINE = "tutorial-2"
NO_BF16 = "this CPU has no bf16 arithmetic (avx512_bf16, amx_bf16), so that precision=auto is f32"

_RAY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
_OPENVINO = {"BENCHMARK_ENGINE": "openvino"}
_SHARED = HERE / "contestants" / "shared"
_ROOT = HERE.parent


@dataclass(frozen=True)
class Contestant:
    """A service. `command` takes the interpreter, the port and the workload; None means the harness's own."""

    name: str
    group: Group
    about: str
    environment: str | None
    command: Callable[[str, int, Workload], list[str]] = field(repr=False)
    variables: Mapping[str, str] = field(default_factory=dict)
    precision: Precision = "f32"
    """The in-process upper bound that it is compared with."""
    in_short: bool = False
    protocol: ProtocolName = "multipart"
    """How a picture is sent to it."""
    path: str | None = None
    """The path to send it to, if it is not this project's."""
    has_grpc: bool = False
    """Whether it listens at the spare port, too, by the Open Inference Protocol."""
    takes_bodies: bool = False
    """Whether it is also measured with raw bodies and batches."""

    def prepare(self) -> str:
        """Return the interpreter to start it with; build its environment if needed. Raises NotBuilt."""
        if self.environment is None:
            return sys.executable
        return str(python_of(self.environment, of_the_system=self.environment == "triton"))

    def reason_to_skip(self) -> str | None:
        """Return why it cannot take part at all, or None."""
        return NO_BF16 if self.precision == "auto" and not has_bf16() else None

    def process_environment(self, port: int, spare_port: int, workload: Workload) -> dict[str, str]:
        """Return the process's environment: the machine's without this project's settings, and the run's own."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("IMAGECLASS_")}
        own = {"PYTHONPATH": str(_ROOT if self.environment is None or self.group == "ours" else _SHARED)}
        run = {
            "BENCHMARK_BUNDLE": str(workload.bundle),
            "BENCHMARK_PORT": str(port),
            "BENCHMARK_SPARE_PORT": str(spare_port),
            "BENCHMARK_BATCH_SIZE": str(workload.batch_size),
            "BENCHMARK_WORK": str(WORK),
        }
        grpc = {"IMAGECLASS_GRPC_PORT": str(spare_port)} if self.has_grpc and self.group == "ours" else {}
        return {**inherited, **own, **run, **grpc, **self.variables}

    def folder(self) -> Path:
        """Return the folder to run it in."""
        return _ROOT if self.group == "ours" else HERE / "contestants" / (self.environment or "bare")


def contestants() -> list[Contestant]:
    """Return all of them, in the order of the tables."""
    return [
        ours("openvino", workers=1, in_short=True),
        ours("openvino", workers=2, in_short=True),
        ours("openvino", workers=1, precision="auto"),
        ours("openvino", workers=2, precision="auto"),
        ours("tensorflow", workers=1),
        ours("tensorflow", workers=2),
        _tutorial("tutorial-1", "service:app", workers=1),
        _tutorial(BASELINE, "service:app", workers=2, in_short=True),
        _tutorial("tutorial-tuned", "tuned:app", workers=2, more=("--no-access-log",)),
        _peer("litserve", lambda python, *_: [python, "service.py"]),
        _peer("bentoml", _bentoml),
        _peer("mlserver", lambda python, *_: [python, "start.py"]),
        _peer("ray_serve", lambda python, *_: [python, "service.py"], _RAY),
        _ours_on_ray(),
        bare(workers=1),
        bare(workers=2),
    ]


def ours(
    engine: EngineName,
    *,
    workers: int,
    precision: Precision | None = None,
    in_short: bool = False,
    store: Path | None = None,
) -> Contestant:
    """Return this project's service; on OpenVINO in f32 it is measured with all kinds of body.

    Serve `store` instead of the workload's store.
    """
    return Contestant(
        name=f"ours-{engine}-{precision or 'f32'}-{workers}",
        group="ours",
        about=f"this project, engine={engine}, precision={precision or 'f32'}, {_workers(workers)}",
        environment=None,
        command=lambda python, port, workload: [
            *(python, "-m", "app", "serve", "--host", "127.0.0.1", "--port", str(port)),
            *("--model-store", str(store or workload.store), "--log-level", "warning"),
        ],
        variables={
            "IMAGECLASS_ENGINE": engine,
            "IMAGECLASS_WORKERS": str(workers),
            "IMAGECLASS_PRECISION": precision or "f32",
        },
        precision=precision or "f32",
        in_short=in_short,
        takes_bodies=engine == "openvino" and precision is None,
    )


def at_equal_engines() -> list[Contestant]:
    """Return this project and the peers, all with the same SavedModel on OpenVINO in f32, two processes each."""
    return [
        replace(ours("openvino", workers=2), has_grpc=True),
        replace(
            _peer("mosec", lambda python, port, _: [python, "service.py", "--port", str(port)], _OPENVINO),
            protocol="raw body",
            path="/inference",
        ),
        replace(
            _peer("triton", lambda python, *_: [python, "start.py"], _OPENVINO),
            protocol="v2 binary BYTES",
            has_grpc=True,
        ),
        _peer("litserve", lambda python, *_: [python, "service.py"], _OPENVINO),
        _peer("bentoml", _bentoml, _OPENVINO),
    ]


def _ours_on_ray() -> Contestant:
    return Contestant(
        name="ours-ray",
        group="ours",
        about="this project on Ray Serve, HAProxy, a replica for each core",
        environment="ours_ray",
        command=lambda python, *_: [python, str(HERE / "contestants" / "ours_ray" / "service.py")],
        variables={"IMAGECLASS_LOG_LEVEL": "warning", **_RAY},
    )


def bare(*, workers: int) -> Contestant:
    return Contestant(
        name=f"bare-{workers}",
        group="ceiling",
        about=f"bare ASGI under our uvicorn settings, fixed answer, {_workers(workers)}",
        environment=None,
        command=lambda python, port, _workload: [
            *(python, "-m", "uvicorn", "service:app", "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", str(workers), "--loop", "uvloop", "--http", "httptools", "--lifespan", "off"),
            *("--no-access-log", "--no-server-header", "--log-level", "warning"),
        ],
        in_short=True,
        takes_bodies=True,
    )


def _tutorial(
    name: str, target: str, *, workers: int, more: tuple[str, ...] = (), in_short: bool = False
) -> Contestant:
    return Contestant(
        name=name,
        group="tutorial",
        about=f"FastAPI, UploadFile, TensorFlow in the endpoint{' (def)' if more else ''}, {_workers(workers)}",
        environment="tutorial",
        command=lambda python, port, _workload: [
            *(python, "-m", "uvicorn", target, "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", str(workers), *more),
        ],
        in_short=in_short,
    )


def _peer(
    name: str, command: Callable[[str, int, Workload], list[str]], variables: Mapping[str, str] | None = None
) -> Contestant:
    return Contestant(
        name=name,
        group="peer",
        about="its own batching, " + (variables or {}).get("BENCHMARK_ENGINE", "tensorflow"),
        environment=name,
        command=command,
        variables=variables or {},
    )


def _bentoml(python: str, port: int, _workload: Workload) -> list[str]:
    program = str(Path(python).with_name("bentoml"))
    return [program, "serve", "service:Classifier", "--host", "127.0.0.1", "--port", str(port)]


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"
