"""Clients of every kind on one event loop: they talk to a service until it has been asked so many requests."""

import asyncio
import math
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable
from random import Random

from tests.connections.asked import Asked, Requests, cut, spoil
from tests.connections.dialogue import Dialogue, Violation

RECEIVE_TIMEOUT_S = KEEP_ALIVE_S = 4
REQUEST_TIMEOUT_S = 30
_PHASE_S = 5.0
_MOST_TURNS = 20
_CALM_CLIENTS, _MOST_CLIENTS = 12, 150
_MOST_VIOLATIONS = 20
_PATIENCE_S = 60
_SECOND_S = 1.0
_STALL_S = 3.0
_OVER_S = 5.0
"""So long after the last 503 no overload is left."""


class Peer(asyncio.Protocol):
    """The client's side of one connection."""

    transport: asyncio.Transport

    def __init__(self, dialogue: Dialogue) -> None:
        self.dialogue = dialogue
        self.violation: Violation | None = None
        self._waited_s = 0  # since something arrived
        self._waiter: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._waited_s = 0
        self._judge(lambda: self.dialogue.receives(data))

    def eof_received(self) -> None:
        self._end(reset=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(reset=exc is not None)

    def wait_another_second(self) -> None:
        self._waited_s += 1
        if self._waited_s > _PATIENCE_S and not self.dialogue.is_over:
            self._judge(self._lose_patience)

    def send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.dialogue.sent(data)
            self.transport.write(data)

    def half_close(self) -> None:
        if not self.transport.is_closing():
            self.dialogue.half_closes()
            self.transport.write_eof()

    def reset(self) -> None:
        self.dialogue.is_over = True  # nothing is expected any more
        self._socket_option(socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def close(self) -> None:
        self.dialogue.is_over = True
        self.transport.close()

    def is_deaf(self) -> None:
        if not self.transport.is_closing():
            self.dialogue.is_deaf()
            self.transport.pause_reading()

    def hears(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def has_little_room(self) -> None:
        self._socket_option(socket.SO_RCVBUF, struct.pack("i", 32 * 1024))

    async def until(self, condition: Callable[[], bool]) -> bool:
        """Wait until the condition holds or the connection is over; return whether it can be used further."""
        while not (condition() or self.dialogue.is_over or self.violation):
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.violation is not None:
            raise self.violation
        return not (self.dialogue.is_over or self.dialogue.closes)

    async def until_over(self) -> bool:
        return await self.until(lambda: False)

    def _socket_option(self, option: int, value: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, value)

    def _end(self, *, reset: bool) -> None:
        if not self.dialogue.is_over:
            self._judge(lambda: self.dialogue.ends(reset=reset))

    def _lose_patience(self) -> None:
        raise self.dialogue.violation(f"it neither answered nor closed in {_PATIENCE_S} s")

    def _judge(self, event: Callable[[], None]) -> None:
        try:
            event()
        except Violation as violation:
            self.violation = self.violation or violation
            self.dialogue.is_over = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Talk:
    """One connection from its beginning to its end."""

    def __init__(self, peer: Peer, requests: Requests, rng: Random, name: str, counts: Counter[str]) -> None:
        self._peer = peer
        self._dialogue = peer.dialogue
        self._requests = requests
        self._rng = rng
        self._name = name
        self._number = 0
        self._counts = counts
        turns = (self._ask, self._send_part, self._spoil, self._say_last, self._do_not_read, self._leave, self._idle)
        self._turns = dict(zip(turns, (60, 3, 4, 2, 0.3, 1, 0.3), strict=True))

    async def run(self) -> None:
        turns, weights = list(self._turns), list(self._turns.values())
        for turn in self._rng.choices(turns, weights, k=self._rng.randint(1, _MOST_TURNS)):
            if not await turn():
                break
        else:
            if await self._peer.until(lambda: self._dialogue.is_answered):
                return
        if not self._dialogue.is_over:  # an answer said that the service closes
            await self._peer.until_over()

    # Turns; they return whether the connection can be used further

    async def _ask(self) -> bool:
        rng = self._rng
        requests = [self._next() for _ in range(rng.choice((1, 1, 1, 2, 4, 8)))]
        waits = rng.randrange(2) and requests[-1].expects_continue
        data = b"".join(request.data for request in requests)
        body = requests[-1].data[requests[-1].head_size :] if waits else b""
        await self._send(data.removesuffix(body) if body else data)
        if body:
            self._counts["bodies that waited for 100"] += 1
            if not await self._peer.until(lambda: self._dialogue.was_continued):
                return False
            await self._send(body)
        return not rng.randrange(5) or await self._answered()

    async def _send_part(self) -> bool:
        rng, request = self._rng, self._next()
        size = rng.randrange(1, len(request.data)) if rng.randrange(2) else rng.randrange(1, request.head_size)
        await self._send(request.data[:size])
        way = rng.randrange(12)
        if way < 5:
            await asyncio.sleep(rng.choice((0, 0.001, 0.05)))
            await self._send(request.data[size:])
            return await self._answered()
        if way < 8:
            self._counts["resets"] += 1
            self._peer.reset()
        elif way < 11:
            self._half_close()
            await self._peer.until_over()
        else:
            self._counts["requests that stay incomplete"] += 1
            await self._peer.until_over()
        return False

    async def _spoil(self) -> bool:
        rng = self._rng
        before = [self._next() for _ in range(rng.choice((0, 0, 1, 3)))]
        await self._send(b"".join(request.data for request in before))
        if self._dialogue.is_over:
            return False
        self._dialogue.spoils()
        data = [spoil(rng, self._make())]
        data += [spoil(rng, self._make()) if rng.randrange(3) else self._make().data for _ in range(rng.randrange(4))]
        self._counts["requests spoiled"] += len(data)
        await self._send(b"".join(data))
        if rng.randrange(20):
            self._half_close()
        await self._peer.until_over()
        return False

    async def _say_last(self) -> bool:
        await self._ask()
        self._half_close()
        await self._peer.until_over()
        return False

    async def _do_not_read(self) -> bool:
        rng, peer = self._rng, self._peer
        peer.has_little_room()
        peer.is_deaf()
        self._counts["clients that do not read"] += 1
        count = rng.choice((1, 2, 4))
        requests = [self._ask_for(self._requests.large_answer(rng, self._identity())) for _ in range(count)]
        requests += [self._next() for _ in range(rng.randrange(3))]
        await self._send(b"".join(request.data for request in requests))
        await asyncio.sleep(0.1 if rng.randrange(20) else RECEIVE_TIMEOUT_S + 1)
        peer.hears()
        return await self._answered()

    async def _leave(self) -> bool:
        await self._send(self._next().data)
        if self._rng.randrange(2):
            self._counts["resets"] += 1
            self._peer.reset()
        else:
            self._peer.close()
        return False

    async def _idle(self) -> bool:
        self._counts["connections left idle"] += 1
        if await self._answered():
            await self._peer.until_over()
        return False

    # Their parts

    def _identity(self) -> str:
        self._number += 1
        return f"{self._name}-{self._number}"

    def _make(self) -> Asked:
        return self._requests.any(self._rng, self._identity())

    def _next(self) -> Asked:
        return self._ask_for(self._make())

    def _ask_for(self, request: Asked) -> Asked:
        self._dialogue.ask(request)
        return request

    async def _send(self, data: bytes) -> None:
        pieces = cut(self._rng, data)
        self._counts["segments"] += len(pieces)
        for piece in pieces:
            self._peer.send(piece)
            if len(pieces) > 1:
                await asyncio.sleep(0)

    def _half_close(self) -> None:
        self._counts["half-closes"] += 1
        self._peer.half_close()

    async def _answered(self) -> bool:
        return await self._peer.until(lambda: self._dialogue.is_answered)


class Crowd:
    """`counts` says what was done, `statuses` what was answered, `violations` what the service must not do."""

    def __init__(self, address: tuple[str, int], requests: Requests, *, seed: int) -> None:
        self._address = address
        self._requests = requests
        self._seed = seed
        self.counts: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.violations: list[Violation] = []
        self._most = 0
        self._peers: set[Peer] = set()
        self._is_crowded = asyncio.Event()
        self._rejected_at = -_OVER_S

    async def run(self, requests: int) -> None:
        """Talk until so many requests have been sent in all, with few clients and with many by turns."""
        self._most = requests
        patience = asyncio.create_task(self._count_seconds())
        async with asyncio.TaskGroup() as clients:
            for index in range(_MOST_CLIENTS):
                clients.create_task(self._be_client(index))
            while self._goes_on:
                await asyncio.sleep(_PHASE_S)
                self._change_phase()
            self._is_crowded.set()  # so that all see that it is over
        patience.cancel()

    @property
    def _goes_on(self) -> bool:
        return self.counts["requests sent"] < self._most and len(self.violations) < _MOST_VIOLATIONS

    def _overloaded_until(self) -> float:
        return math.inf if self._is_crowded.is_set() else self._rejected_at + _OVER_S

    def _change_phase(self) -> None:
        if self._is_crowded.is_set():
            self._is_crowded.clear()
            self._rejected_at = time.monotonic()
        else:
            self._is_crowded.set()
            self.counts["periods of overload"] += 1

    async def _count_seconds(self) -> None:
        """Let the clients wait. A time in which this program itself stands still, and reads nothing, is one second."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            await asyncio.sleep(_SECOND_S)
            if loop.time() - began > _STALL_S:
                self.counts["times this program stood still"] += 1
            for peer in list(self._peers):
                peer.wait_another_second()

    async def _be_client(self, index: int) -> None:
        number = 0
        while self._goes_on:
            if index >= _CALM_CLIENTS:
                await self._is_crowded.wait()
            number += 1
            await self._connect(Random(f"{self._seed}-{index}-{number}"), f"{index}-{number}")  # noqa: S311

    async def _connect(self, rng: Random, name: str) -> None:
        dialogue = Dialogue(
            receive_timeout_s=RECEIVE_TIMEOUT_S,
            keep_alive_s=KEEP_ALIVE_S,
            request_timeout_s=REQUEST_TIMEOUT_S,
            overloaded_until=self._overloaded_until,
        )
        peer = Peer(dialogue)
        await asyncio.get_running_loop().create_connection(lambda: peer, *self._address)
        self._peers.add(peer)
        try:
            await Talk(peer, self._requests, rng, name, self.counts).run()
        except Violation as violation:
            self.violations.append(violation)
        finally:
            self._peers.discard(peer)
            peer.transport.abort()
            self._count(dialogue)

    def _count(self, dialogue: Dialogue) -> None:
        self.counts["connections"] += 1
        self.counts["requests sent"] += dialogue.requests_sent
        self.counts["requests answered"] += len(dialogue.answers)
        for answer in dialogue.answers:
            self.statuses[answer.status] += 1
            if answer.status == 503:
                self._rejected_at = time.monotonic()
