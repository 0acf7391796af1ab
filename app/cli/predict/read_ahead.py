"""Read pictures ahead in a thread, and hand over those that are ready."""

import asyncio
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from app.cli.predict.pictures import Picture, Unreadable

Read = Picture | Unreadable

_BATCHES = 4
"""At most this many batches are held, in pictures and in bytes."""


class ReadAhead:
    """Takes pictures from an iterator that may block, and gives batches of up to `batch_size` and `batch_bytes`.

    An idle caller gets each picture as soon as it is read, a busy one finds a full batch. The thread ends with the
    process, so an iterator that blocks forever, such as an idle pipe, does not keep the process alive.
    """

    def __init__(self, pictures: Iterator[Read], *, batch_size: int, batch_bytes: int) -> None:
        self._pictures = pictures
        self._batch_size = batch_size
        self._batch_bytes = batch_bytes
        self._loop = asyncio.get_running_loop()
        self._read: deque[Read] = deque()
        self._bytes = 0
        self._room = threading.Condition()
        self._ended = False
        self._error: BaseException | None = None
        self._awaited = False
        self._news = asyncio.Event()
        threading.Thread(target=self._run, name="read-ahead", daemon=True).start()

    async def take(self) -> list[Read] | None:
        """Return the next pictures, at least one, or None at the end. Raises the iterator's exception."""
        while True:
            with self._room:
                batch = self._batch()
                ended = self._ended
                self._awaited = not batch
                self._news.clear()
            if batch:
                return batch
            if ended:
                if self._error is not None:
                    raise self._error
                return None
            await self._news.wait()

    def _batch(self) -> list[Read]:
        batch: list[Read] = []
        held = 0
        while self._read and len(batch) < self._batch_size and held < self._batch_bytes:
            batch.append(self._read.popleft())
            held += _size(batch[-1])
        self._bytes -= held
        self._room.notify()
        return batch

    def _run(self) -> None:
        try:
            for picture in self._pictures:
                with self._room:
                    self._room.wait_for(self._has_room)
                    self._read.append(picture)
                    self._bytes += _size(picture)
                    self._tell()
        except BaseException as exc:  # noqa: BLE001 - any error belongs to the consumer
            self._error = exc
        with self._room:
            self._ended = True
            self._tell()

    def _has_room(self) -> bool:
        return len(self._read) < _BATCHES * self._batch_size and self._bytes < _BATCHES * self._batch_bytes

    def _tell(self) -> None:
        if self._awaited:
            self._awaited = False
            with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                self._loop.call_soon_threadsafe(self._news.set)


def _size(picture: Read) -> int:
    return len(picture.data) if isinstance(picture, Picture) else 0
