"""Run a SavedModel with OpenVINO, which reads it directly: no TensorFlow in the process."""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contract.bundle import Signature
from app.contract.preprocessing import Image
from app.engines.engine import Precision
from app.engines.registry import EngineName
from app.engines.signature import check_signature
from app.errors import BundleTampered, EngineUnavailable

_DTYPES = {"u8": "uint8", "f32": "float32"}

_NOT_IMPORTED = ("openvino_telemetry", "openvino.tools.ovc")
"""Modules that `import openvino` does not need. The first writes a client id into the user's home and, at every import,
starts a process that reports it to Google Analytics, unasked. The second, the model converter, imports the first, and
takes 0.2 s and 15 MB more. OpenVINO catches the ImportError of either."""


class OpenVinoEngine:
    """A network for each prepared batch size, and one for any size: compiled if it is needed, freed by `prepare`.

    These networks compute probabilities only, so that nobody pays for outputs that are not requested. The whole network
    is compiled when another output is first requested.
    """

    name: EngineName = "openvino"

    def __init__(self, model: Any, compile_model: Callable[[Any], Any], signature: Signature) -> None:
        self._whole = model
        self._model = _with_only(model, signature.output.name) if signature.other_outputs else model
        self._compile = compile_model
        self._signature = signature
        self._any_size: _OfAnySize | None = None
        self._of_one_size: dict[int, _OfOneSize] = {}
        self._with_all_outputs: _OfAnySize | None = None
        self._compiling = Lock()

    def predict(self, batch: Image) -> NDArray[np.float32]:
        return (self._of_one_size.get(len(batch)) or self._of_any_size()).predict(batch)

    def outputs(self, batch: Image) -> dict[str, NDArray[np.float32]]:
        with self._compiling:
            if self._with_all_outputs is None:
                self._with_all_outputs = _OfAnySize(self._compile(self._whole), self._signature)
        return self._with_all_outputs.outputs(batch)

    def prepare(self, batch_size: int) -> None:
        # A network for any size keeps the memory of its largest batch: for 16 photos, more than all else together.
        self._any_size = None
        if batch_size in self._of_one_size:
            return
        model = self._model.clone()
        model.reshape([batch_size, *model.inputs[0].partial_shape[1:]])
        self._of_one_size[batch_size] = _OfOneSize(self._compile(model), self._signature)

    def close(self) -> None:
        self._of_one_size.clear()
        self._any_size = self._with_all_outputs = None
        self._model = self._whole = None

    def _of_any_size(self) -> "_OfAnySize":
        with self._compiling:
            if self._any_size is None:
                self._any_size = _OfAnySize(self._compile(self._model), self._signature)
            return self._any_size


class _OfAnySize:
    def __init__(self, compiled: Any, signature: Signature) -> None:
        self._compiled = compiled
        self._input = signature.input.name
        self._output = signature.output.name
        # An infer request serves one call at a time; there are as many as the most calls that have overlapped.
        self._idle: SimpleQueue[Any] = SimpleQueue()

    def predict(self, batch: Image) -> NDArray[np.float32]:
        values: NDArray[np.float32] = self._run(batch)[self._output]
        return values

    def outputs(self, batch: Image) -> dict[str, NDArray[np.float32]]:
        return {port.any_name: values for port, values in self._run(batch).items()}

    def _run(self, batch: Image) -> Any:
        try:
            request = self._idle.get_nowait()
        except Empty:
            request = self._compiled.create_infer_request()
        try:
            return request.infer({self._input: batch}, share_inputs=True)
        finally:
            self._idle.put(request)


class _OfOneSize:
    """A network compiled for one batch size, with fixed tensors.

    In a network for any batch size, a change of the size costs 150 to 330 µs, and passing arrays by name another 140:
    more than a small network takes for a picture.
    """

    def __init__(self, compiled: Any, signature: Signature) -> None:
        self._compiled = compiled
        self._output = signature.output.name
        self._idle: SimpleQueue[tuple[Any, Image, NDArray[np.float32]]] = SimpleQueue()

    def predict(self, batch: Image) -> NDArray[np.float32]:
        try:
            idle = self._idle.get_nowait()
        except Empty:
            request = self._compiled.create_infer_request()
            idle = request, request.get_input_tensor().data, request.get_tensor(self._output).data
        request, images, probabilities = idle
        try:
            images[:] = batch
            request.infer()
            return probabilities.copy()
        finally:
            self._idle.put(idle)


def open_openvino(path: Path, signature: Signature, *, threads: int, precision: Precision = "f32") -> OpenVinoEngine:
    """Load the SavedModel at `path`; see `EngineFactory`."""
    if precision == "bf16" and not cpu_has_bf16():
        raise EngineUnavailable("this CPU has no bf16")
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
        "INFERENCE_PRECISION_HINT": precision,  # OpenVINO's own default is bf16 on CPUs that have it
        "INFERENCE_NUM_THREADS": threads,
        # With pinning, every worker process takes the same first cores.
        "ENABLE_CPU_PINNING": False,
    }

    def compile_model(model: Any) -> Any:
        try:
            return core.compile_model(model, "CPU", options)
        except RuntimeError as exc:
            raise EngineUnavailable(f"OpenVINO cannot run {path} on this CPU: {_first_line(exc)}") from exc

    return OpenVinoEngine(model, compile_model, signature)


def cpu_has_bf16() -> bool:
    """Say whether OpenVINO can compute in bfloat16 on this CPU. Raises EngineUnavailable without OpenVINO."""
    return "BF16" in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def import_openvino() -> Any:
    """Import `openvino` without its telemetry and return it.

    The telemetry would report every import to its makers, from a thread and a process. The import takes 0.1 s and 45
    MB: only processes that run models, or are forked into such, should pay for it.
    """
    for module in _NOT_IMPORTED:
        sys.modules.setdefault(module, None)  # type: ignore[arg-type] # None makes its import fail
    import openvino

    return openvino


@cache
def _core() -> Any:
    """Return this process's one Core, which is never freed.

    Each Core gives the thread that creates it a signal stack, and takes it back when freed. Two Cores that are freed in
    the order of their creation leave the thread with a freed stack, and the next signal ends the process.
    """
    try:
        openvino = import_openvino()
    except ImportError as exc:
        raise EngineUnavailable(f"OpenVINO cannot be loaded: {exc}. Install imageclass again.") from exc
    return openvino.Core()


def _with_only(model: Any, output: str) -> Any:
    """Return a copy of the model with this output only, and without the layers that only other outputs need."""
    copy = model.clone()
    for port in copy.outputs:
        if port.any_name != output:
            copy.remove_result(port.node)
    return copy


def _describe(port: Any) -> tuple[str, tuple[int | None, ...]]:
    shape = tuple(None if dimension.is_dynamic else dimension.get_length() for dimension in port.partial_shape)
    element = port.element_type.get_type_name()
    return _DTYPES.get(element, element), shape


def _first_line(exc: Exception) -> str:
    return next((line for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
