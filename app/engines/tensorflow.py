"""Run a SavedModel with TensorFlow, the reference engine: exports and golden probabilities come from it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contract.bundle import Signature
from app.contract.preprocessing import Image
from app.engines.engine import Precision
from app.engines.registry import EngineName
from app.engines.signature import check_signature
from app.errors import BundleTampered, EngineUnavailable
from app.system.invocation import installs


class TensorFlowEngine:
    name: EngineName = "tensorflow"

    def __init__(self, tf: Any, loaded: Any, function: Any, signature: Signature) -> None:
        self._tf = tf
        self._loaded = loaded  # its variables live as long as this object
        self._function = function
        self._input = signature.input.name
        self._output = signature.output.name

    def predict(self, batch: Image) -> NDArray[np.float32]:
        values: NDArray[np.float32] = self._run(batch)[self._output].numpy()
        return values

    def outputs(self, batch: Image) -> dict[str, NDArray[np.float32]]:
        return {name: values.numpy() for name, values in self._run(batch).items()}

    def _run(self, batch: Image) -> dict[str, Any]:
        answer: dict[str, Any] = self._function(**{self._input: self._tf.constant(batch)})
        return answer

    def prepare(self, batch_size: int) -> None:
        """Do nothing: TensorFlow is as fast with any batch size."""

    def close(self) -> None:
        self._function = self._loaded = None


def open_tensorflow(
    path: Path, signature: Signature, *, threads: int, precision: Precision = "f32"
) -> TensorFlowEngine:
    """Load the SavedModel at `path`; see `EngineFactory`.

    TensorFlow's threads belong to the process: the first call sets their number.
    """
    if precision != "f32":
        raise EngineUnavailable("tensorflow runs in f32 only")
    tf = import_tensorflow()
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        pass  # TensorFlow already runs in this process, as in training: its threads cannot be changed
    try:
        loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, LookupError, RuntimeError, tf.errors.OpError) as exc:
        raise BundleTampered(f"{path}: TensorFlow cannot read the SavedModel: {exc}") from exc
    function = loaded.signatures.get(signature.name)
    if function is None:
        names = ", ".join(loaded.signatures) or "none"
        raise BundleTampered(f"{path}: the SavedModel has no signature '{signature.name}', only: {names}.")
    check_signature(
        path,
        signature,
        {name: _describe(spec) for name, spec in function.structured_input_signature[1].items()},
        {name: _describe(spec) for name, spec in function.structured_outputs.items()},
    )
    return TensorFlowEngine(tf, loaded, function, signature)


def import_tensorflow() -> Any:
    """Import TensorFlow, without the messages that its C++ runtime prints to standard error at the first import.

    Raises EngineUnavailable if it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read once, by the first import
    try:
        if "tensorflow" in sys.modules:
            import tensorflow as tf
        else:
            with _native_stderr_closed():
                import tensorflow as tf  # 3 s and 400 MB

                tf.config.list_physical_devices()  # looks for a GPU, and logs at length if there is none
    except ImportError as exc:
        raise EngineUnavailable(
            "TensorFlow is not installed. Training needs it; the service does not, with IMAGECLASS_ENGINE=auto or "
            f"openvino. To install it, {installs('training')}."
        ) from exc
    return tf


@contextmanager
def _native_stderr_closed() -> Iterator[None]:
    """Discard file descriptor 2: native code writes messages to it before its log level is set."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _describe(spec: Any) -> tuple[str, tuple[int | None, ...]]:
    return spec.dtype.name, tuple(spec.shape)
