"""The two clients: one for threads, one for an event loop. They make the same calls and return the same types."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

import httpx

from app.client import calls
from app.client.answers import Explanation, Failure, Outcome, Prediction, ServedModel
from app.client.calls import Call, Options, Query
from app.client.order import in_order, in_order_by_threads
from app.client.retry import Retry
from app.errors import ServiceError

Answer = TypeVar("Answer")

BATCH_SIZE = 64
"""Pictures in a request: the most that a service with default settings accepts."""
BATCH_BYTES = 8 * 1024 * 1024
"""A batch ends with the picture that reaches this size, in bytes."""
AT_ONCE = 4
"""Concurrent requests."""


class ServiceClient:
    """A connection pool to one service, safe to share between threads.

    Args:
        url: the service's address, such as `http://127.0.0.1:8000`.
        api_key: the key that a service with API keys asks for.
        timeout_s: how long each try may take to connect, to send a piece of the request, and to receive a piece of
            the answer.
        max_connections: how many connections are open at once.
        retry: when a request is sent again; `Retry()` if left out.
        transport: how requests are sent, for tests.

    Every method raises ServiceError, with the service's own sentence or saying that it does not answer, once `retry`
    allows no further try.

    >>> with ServiceClient("http://127.0.0.1:8000", transport=service) as client:
    ...     client.predict(picture).label
    '7'
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        max_connections: int = 16,
        retry: Retry | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._retry = retry or Retry()
        address = _checked(url)
        self._http = httpx.Client(
            base_url=address,
            headers=_headers(api_key),
            timeout=_timeout(timeout_s),
            verify=address.scheme == "https",
            limits=_limits(max_connections),
            transport=transport,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. A `with` block does it at its end."""
        self._http.close()

    def predict(self, picture: bytes, **options: Unpack[Options]) -> Prediction:
        """Return the answer to one picture, which is the bytes of a file.

        >>> answer = client.predict(picture, top_k=1)
        >>> answer.label, answer.probability, answer.model.version
        ('7', 0.75, 1)
        """
        return self._ask(calls.predict(picture, calls.query_of(**options)))

    def explain(
        self, picture: bytes, label: str | None = None, *, model: str | None = None, version: int | None = None
    ) -> Explanation:
        """Return the answer to one encoded picture with the map of `label`, or of the predicted label."""
        return self._ask(calls.explain(picture, model, version, label))

    def predict_batch(self, pictures: Sequence[bytes], **options: Unpack[Options]) -> list[Outcome]:
        """Return the answer to each picture, or the reason why it has none.

        The pictures are sent in one request, or in several if the service says that they are too many or too large.

        >>> [type(outcome).__name__ for outcome in client.predict_batch([picture, b"no picture"])]
        ['Prediction', 'Failure']
        """
        return self._batch(pictures, calls.query_of(**options))

    def predict_many(
        self,
        pictures: Iterable[bytes],
        *,
        batch_size: int = BATCH_SIZE,
        at_once: int = AT_ONCE,
        **options: Unpack[Options],
    ) -> Iterator[Outcome]:
        """Yield what `predict_batch` returns, in order, for any number of pictures.

        Args:
            pictures: read as they are sent, so an iterator of very many takes little memory.
            batch_size: pictures in a request.
            at_once: requests that are sent at the same time.

        >>> next(client.predict_many(iter([picture, b"no picture"]))).label
        '7'
        """
        query = calls.query_of(**options)
        batches = in_batches(pictures, batch_size)
        for outcomes in in_order_by_threads(batches, lambda batch: self._batch(batch, query), at_once=at_once):
            yield from outcomes

    def _batch(self, pictures: Sequence[bytes], query: Query) -> list[Outcome]:
        try:
            return self._ask(calls.predict_batch(pictures, query))
        except ServiceError as rejection:
            parts = calls.smaller(pictures, rejection)
        if isinstance(parts, Failure):
            return [parts]
        return [outcome for part in parts for outcome in self._batch(part, query)]

    def models(self) -> list[ServedModel]:
        """Return the models that are served.

        >>> [(model.name, model.labels) for model in client.models()]
        [('mnist', ('1', '7'))]
        """
        return self._ask(calls.models())

    def model(self, name: str) -> ServedModel:
        """Return one model that is served."""
        return self._ask(calls.model(name))

    def _ask(self, call: Call[Answer]) -> Answer:
        request = call.request(self._http)
        for attempt in self._retry.attempts():
            if attempt.wait_s:
                time.sleep(attempt.wait_s)
            with attempt:
                attempt.outcome = self._http.send(request)
        return _settled(call, attempt.outcome, self._http.base_url)


class AsyncServiceClient:
    """ServiceClient on an event loop: the same arguments, methods, answers and errors; see there.

    >>> async def ask() -> str:
    ...     async with AsyncServiceClient("http://127.0.0.1:8000", transport=service) as client:
    ...         return (await client.predict(picture)).label
    >>> asyncio.run(ask())
    '7'
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        max_connections: int = 16,
        retry: Retry | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._retry = retry or Retry()
        address = _checked(url)
        self._http = httpx.AsyncClient(
            base_url=address,
            headers=_headers(api_key),
            timeout=_timeout(timeout_s),
            verify=address.scheme == "https",
            limits=_limits(max_connections),
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def predict(self, picture: bytes, **options: Unpack[Options]) -> Prediction:
        return await self._ask(calls.predict(picture, calls.query_of(**options)))

    async def explain(
        self, picture: bytes, label: str | None = None, *, model: str | None = None, version: int | None = None
    ) -> Explanation:
        return await self._ask(calls.explain(picture, model, version, label))

    async def predict_batch(self, pictures: Sequence[bytes], **options: Unpack[Options]) -> list[Outcome]:
        return await self._batch(pictures, calls.query_of(**options))

    async def predict_many(
        self,
        pictures: Iterable[bytes],
        *,
        batch_size: int = BATCH_SIZE,
        at_once: int = AT_ONCE,
        **options: Unpack[Options],
    ) -> AsyncIterator[Outcome]:
        query = calls.query_of(**options)
        batches = in_batches(pictures, batch_size)

        async def take() -> list[bytes] | None:
            return next(batches, None)

        async for outcomes in in_order(take, lambda batch: self._batch(batch, query), at_once=at_once):
            for outcome in outcomes:
                yield outcome

    async def _batch(self, pictures: Sequence[bytes], query: Query) -> list[Outcome]:
        try:
            return await self._ask(calls.predict_batch(pictures, query))
        except ServiceError as rejection:
            parts = calls.smaller(pictures, rejection)
        if isinstance(parts, Failure):
            return [parts]
        return [outcome for part in parts for outcome in await self._batch(part, query)]

    async def models(self) -> list[ServedModel]:
        return await self._ask(calls.models())

    async def model(self, name: str) -> ServedModel:
        return await self._ask(calls.model(name))

    async def _ask(self, call: Call[Answer]) -> Answer:
        request = call.request(self._http)
        for attempt in self._retry.attempts():
            if attempt.wait_s:
                await asyncio.sleep(attempt.wait_s)
            with attempt:
                attempt.outcome = await self._http.send(request)
        return _settled(call, attempt.outcome, self._http.base_url)


def in_batches(pictures: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """Yield the pictures in lists of at most `size`, and little more than BATCH_BYTES."""
    batch: list[bytes] = []
    held = 0
    for picture in pictures:
        batch.append(picture)
        held += len(picture)
        if len(batch) >= size or held >= BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _settled(call: Call[Answer], outcome: httpx.Response | httpx.RequestError, url: httpx.URL) -> Answer:
    if isinstance(outcome, httpx.RequestError):
        raise calls.no_answer(url, outcome) from outcome
    return call.answer(outcome)


def _checked(url: str) -> httpx.URL:
    """Return the address of a service. Raises ServiceError if it is not one."""
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL as exc:
        raise ServiceError(
            f"'{url}' is not an address of a service: {exc}. Give one such as http://127.0.0.1:8000."
        ) from exc
    if found.scheme not in ("http", "https") or not found.host:
        raise ServiceError(f"'{url}' is not an address of a service. Give one such as http://127.0.0.1:8000.")
    return found


def _headers(api_key: str | None) -> dict[str, str]:
    if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
        raise ServiceError(
            "The API key has a character that an HTTP header cannot carry. Copy it again from the service's settings."
        )
    return {} if api_key is None else {"X-API-Key": api_key}


def _timeout(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, pool=None)  # waiting for a connection of its own is no fault of the service


def _limits(connections: int) -> httpx.Limits:
    return httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
