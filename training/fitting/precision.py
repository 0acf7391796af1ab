"""Train a float32 network in bfloat16 if the hardware is faster with it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from app.engines.openvino import cpu_has_bf16
from app.errors import EngineUnavailable
from training.model.preset import Precision
from training.tensorflow import keras


def precision_here(precision: Precision) -> Literal["float32", "mixed_bfloat16"]:
    """Return the precision for "auto" on this machine: bfloat16 if the CPU multiplies in it."""
    if precision != "auto":
        return precision
    try:
        return "mixed_bfloat16" if cpu_has_bf16() else "float32"
    except EngineUnavailable:
        return "float32"


@contextmanager
def computing_in(network: keras.Model, precision: Literal["float32", "mixed_bfloat16"]) -> Iterator[None]:
    """Compute the layers of `network` in `precision` while the block runs; the weights and the last layer stay in
    float32."""
    layers = [] if precision == "float32" else list(_innermost(network.layers[:-1]))
    before = [layer.dtype_policy for layer in layers]
    for layer in layers:
        layer.dtype_policy = precision
    try:
        yield
    finally:
        for layer, policy in zip(layers, before, strict=True):
            layer.dtype_policy = policy


def _innermost(layers: Sequence[keras.Layer]) -> Iterator[keras.Layer]:
    for layer in layers:
        if hasattr(layer, "layers"):  # a network within the network
            yield from _innermost(layer.layers)
        else:
            yield layer
