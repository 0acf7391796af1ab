"""One live model: encoded picture in, classification out. It knows nothing of HTTP or of other models."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.contract.header import ImageHeader, read_header
from app.contract.preprocessing import Image, preprocess
from app.engines.loading import LoadedModel
from app.errors import ImageTooLarge
from app.serving.batcher import Batcher

_INLINE_PIXELS = 256 * 256
"""Pictures up to this size are decoded on the event loop: a thread hop would cost more than the decoding."""


@dataclass(frozen=True, slots=True)
class Classification:
    """The answer to one picture: `probabilities` (K,) float32, in the order of `labels`."""

    labels: tuple[str, ...]
    probabilities: NDArray[np.float32]
    model: str
    version: int


class Classifier:
    """Owns its engine and its batcher; `aclose` ends both."""

    def __init__(
        self, loaded: LoadedModel, *, decode_pool: Executor, max_pixels: int, max_waiting: int, sizes: Sequence[int]
    ) -> None:
        self.loaded = loaded
        self.manifest = loaded.bundle.manifest
        self.card = loaded.bundle.card()
        self._loaded_at = time.monotonic()
        self._decode_pool = decode_pool
        self._max_pixels = max_pixels
        self._batcher = Batcher(
            loaded.engine.predict,
            item_shape=self.manifest.preprocessing.shape,
            item_dtype=np.uint8,
            sizes=sizes,
            max_waiting=max_waiting,
        )

    @property
    def age_s(self) -> float:
        """Seconds since this version went live in this process."""
        return time.monotonic() - self._loaded_at

    async def classify(self, data: bytes, *, deadline: float | None = None) -> Classification:
        """Classify one encoded picture; `deadline` is in seconds of the event loop's clock.

        Raises ImageTooLarge, UnsupportedFormat or UndecodableImage for what is wrong with the picture, and a
        ServingError where no answer came.
        """
        header = read_header(data)
        if header.pixels > self._max_pixels:
            raise ImageTooLarge(
                f"The picture has {header.width}x{header.height} pixels; "
                f"at most {self._max_pixels:,} are accepted. Send it smaller."
            )
        image = await self._preprocess(data, header)
        probabilities = await self._batcher.submit(image, deadline=deadline)
        return Classification(self.manifest.labels, probabilities, self.manifest.name, self.manifest.version)

    async def aclose(self, grace_s: float = 0.0) -> None:
        await self._batcher.aclose(grace_s)
        self.loaded.engine.close()

    async def _preprocess(self, data: bytes, header: ImageHeader) -> Image:
        spec = self.manifest.preprocessing
        if header.pixels <= _INLINE_PIXELS:
            return preprocess(data, spec, header=header)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._decode_pool, lambda: preprocess(data, spec, header=header))
