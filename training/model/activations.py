"""Compute a network's outputs for pictures once, on the fastest engine, and cache them under each picture's content.

It is for frozen networks: the first layers of a backbone, or all of it. If all outputs are cached already, no engine is
opened, because writing and compiling a backbone takes seconds.
"""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from app.contract.bundle import Signature, TensorSpec
from app.engines.engine import Engine
from app.engines.loading import open_engine
from app.engines.registry import ENGINES
from app.errors import EngineUnavailable, ImageclassError
from app.system.cores import available_cores
from training.data.segment import DIGEST_BYTES, RowFormat
from training.data.tensor_cache import TensorCache, digest_of
from training.model.saved_model import save
from training.tensorflow import keras

_LAYOUT = 1
_BATCH = 16
_KEPT_TOGETHER = 512
"""Rows, a multiple of a batch, that are stored together: at most this many are lost if the run is killed."""


class Activations:
    """A network whose outputs are cached. Make it with `open_activations`."""

    def __init__(self, network: keras.Model, open_engine: Callable[[], Engine], cache: TensorCache) -> None:
        self._open_engine, self._cache = open_engine, cache
        self._shape = tuple(int(side) for side in network.output_shape[1:])
        self._reads = network.inputs[0].dtype
        self._name = _name_of(network)

    @cached_property
    def _engine(self) -> Engine:
        return self._open_engine()

    def of(
        self, images: NDArray[np.generic], *, mirrored: bool = False, advance: Callable[[int], None] | None = None
    ) -> NDArray[np.float16]:
        """Return the network's outputs for images (N, H, W, C), or for their mirror images, in order.

        `advance` is called with the number of images just done. Raises OptionError if the outputs fit neither in memory
        nor on the disk.
        """
        row = RowFormat(self._name, f"arrays of {'x'.join(map(str, self._shape))}", self._shape, "float16")
        with self._cache.shelf(row, len(images)) as shelf:
            for start in range(0, len(images), _BATCH):
                stop = min(start + _BATCH, len(images))
                batch = images[start:stop, :, ::-1] if mirrored else images[start:stop]
                digests = [digest_of(np.ascontiguousarray(image).tobytes()) for image in batch]
                new = [place for place, digest in enumerate(digests) if not shelf.take(start + place, digest)]
                if new:
                    answers = self._engine.predict(np.ascontiguousarray(batch[new], self._reads))
                    for place, answer in zip(new, answers, strict=True):
                        shelf.put(start + place, digests[place], answer)
                if stop % _KEPT_TOGETHER == 0:
                    shelf.keep(range(stop - _KEPT_TOGETHER, stop))
                if advance is not None:
                    advance(stop - start)
            return shelf.finish(range(len(images)))  # type: ignore[return-value] # the format has this type


@contextmanager
def open_activations(network: keras.Model, cache: TensorCache) -> Iterator[Activations]:
    """Open `network`, which maps images (N, H, W, C) to one array each, on the fastest engine that can run it."""
    with ExitStack() as stack:
        yield Activations(network, lambda: stack.enter_context(_on_an_engine(network)), cache)


@contextmanager
def _on_an_engine(network: keras.Model) -> Iterator[Engine]:
    image, answer = network.inputs[0], network.outputs[0]
    signature = Signature(
        input=TensorSpec(name="image", dtype=image.dtype, shape=tuple(image.shape)),
        output=TensorSpec(name="activations", dtype="float32", shape=tuple(answer.shape)),
    )
    with TemporaryDirectory() as folder:
        save(network, Path(folder), signature)
        engine = _fastest(Path(folder), signature)
        try:
            yield engine
        finally:
            engine.close()


def _fastest(folder: Path, signature: Signature) -> Engine:
    rejected: list[ImageclassError] = []
    for name in ENGINES:
        try:
            engine = open_engine(name, folder, signature, threads=available_cores())
            engine.prepare(_BATCH)
        except EngineUnavailable as exc:
            rejected.append(exc)
        else:
            return engine
    raise rejected[0]


def _name_of(network: keras.Model) -> str:
    """Return a key of the network's function, from its shapes and weights: Keras's names vary."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    digest.update(repr((_LAYOUT, network.input_shape, network.output_shape)).encode())
    for weights in network.get_weights():
        digest.update(np.ascontiguousarray(weights).tobytes())
    return digest.hexdigest()
