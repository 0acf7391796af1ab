"""Compare a SavedModel's signature with the manifest's."""

from collections.abc import Mapping
from pathlib import Path

from app.contract.bundle import Signature
from app.errors import BundleTampered

FoundTensors = Mapping[str, tuple[str, tuple[int | None, ...]]]
"""Tensors by name: (dtype, shape), None for a free dimension."""


def check_signature(path: Path, signature: Signature, inputs: FoundTensors, outputs: FoundTensors) -> None:
    """Raise BundleTampered unless `inputs` and `outputs` match `signature` exactly."""
    for side, promised, found in (("input", (signature.input,), inputs), ("output", signature.outputs, outputs)):
        expected = {tensor.name: (tensor.dtype, tensor.shape) for tensor in promised}
        if dict(found) != expected:
            raise BundleTampered(
                f"{path}: the SavedModel's {side} is {_text(found)}, but the manifest says {_text(expected)}."
            )


def _text(tensors: FoundTensors) -> str:
    return ", ".join(
        f"{name} {dtype} [{', '.join('?' if size is None else str(size) for size in shape)}]"
        for name, (dtype, shape) in tensors.items()
    )
