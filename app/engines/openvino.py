"""Run a SavedModel with OpenVINO, which reads it directly: no TensorFlow in the process."""

from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contract.bundle import Signature
from app.contract.preprocessing import Image
from app.engines.engine import EngineName
from app.engines.signature import check_signature
from app.errors import BundleTampered, EngineUnavailable

_DTYPES = {"u8": "uint8", "f32": "float32"}


class OpenVinoEngine:
    name: EngineName = "openvino"

    def __init__(self, compiled: Any, signature: Signature) -> None:
        self._compiled = compiled
        self._input = signature.input.name
        self._output = signature.output.name
        self._idle_requests: SimpleQueue[Any] = SimpleQueue()

    def predict(self, batch: Image) -> NDArray[np.float32]:
        # An infer request serves one call at a time; as many exist as calls have ever overlapped.
        try:
            request = self._idle_requests.get_nowait()
        except Empty:
            request = self._compiled.create_infer_request()
        try:
            probabilities: NDArray[np.float32] = request.infer({self._input: batch}, share_inputs=True)[self._output]
        finally:
            self._idle_requests.put(request)
        return probabilities

    def close(self) -> None:
        while not self._idle_requests.empty():
            self._idle_requests.get()
        self._compiled = None


def open_openvino(path: Path, signature: Signature, *, threads: int) -> OpenVinoEngine:
    """Load the SavedModel at `path`; see `EngineFactory`."""
    core = _core()
    try:
        model = core.read_model(path)
        found_inputs = {port.any_name: _describe(port) for port in model.inputs}
        found_outputs = {port.any_name: _describe(port) for port in model.outputs}
    except RuntimeError as exc:
        raise BundleTampered(f"{path}: OpenVINO cannot read the SavedModel: {_first_line(exc)}") from exc
    check_signature(path, signature, found_inputs, found_outputs)
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        # The default is bf16 on CPUs that have it, which moves probabilities by up to 0.01.
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        # With pinning, every worker process takes the same first cores.
        "ENABLE_CPU_PINNING": False,
    }
    try:
        compiled = core.compile_model(model, "CPU", options)
    except RuntimeError as exc:
        raise EngineUnavailable(f"OpenVINO cannot run {path} on this CPU: {_first_line(exc)}") from exc
    return OpenVinoEngine(compiled, signature)


@cache
def _core() -> Any:
    """Return the one Core of this process, which is never freed.

    Each Core gives the thread that makes it a signal stack of its own, and takes it back when freed: two that are freed
    in the order of their making leave the thread with a stack that is gone, and the next signal ends the process.
    """
    try:
        import openvino  # 0.3 s and 60 MB: only a process that runs models pays for it
    except ImportError as exc:
        raise EngineUnavailable(f"OpenVINO cannot be loaded: {exc}. Install imageclass again.") from exc
    return openvino.Core()


def _describe(port: Any) -> tuple[str, tuple[int | None, ...]]:
    shape = tuple(None if dimension.is_dynamic else dimension.get_length() for dimension in port.partial_shape)
    element = port.element_type.get_type_name()
    return _DTYPES.get(element, element), shape


def _first_line(exc: Exception) -> str:
    return next((line for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
