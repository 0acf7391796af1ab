"""The interface of an engine."""

from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from app.contract.bundle import Signature
from app.contract.preprocessing import Image
from app.engines.registry import EngineName

Precision = Literal["f32", "bf16"]
PrecisionChoice = Literal["f32", "auto"]


class Engine(Protocol):
    """A loaded SavedModel."""

    @property
    def name(self) -> EngineName: ...

    def predict(self, batch: Image) -> NDArray[np.float32]:
        """Return the probabilities (N, K) of a batch (N, H, W, C). Safe to call from several threads at once."""

    def prepare(self, batch_size: int) -> None:
        """Make batches of exactly this size fast; may take a tenth of a second, or longer for a large network."""

    def close(self) -> None:
        """Free the model. No call may be running, and none may follow."""


@runtime_checkable
class GivesOutputs(Protocol):
    """An engine that can give the network's other outputs too."""

    def outputs(self, batch: Image) -> dict[str, NDArray[np.float32]]:
        """Return all outputs of the signature by name, for a batch (N, H, W, C). Safe to call as `predict` is."""


class EngineFactory(Protocol):
    def __call__(self, path: Path, signature: Signature, *, threads: int, precision: Precision = "f32") -> Engine:
        """Load the SavedModel at `path` to run on `threads` cores.

        Raises EngineUnavailable if the engine is not installed or cannot compute in `precision` here, BundleTampered if
        the SavedModel cannot be read or its signature is not `signature`.
        """
