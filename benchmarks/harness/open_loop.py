"""Open loop: send requests at a fixed rate whatever the service does, and measure latency from when each was due.

A closed loop sends its next request when the last was answered. If the service stalls, a closed loop sends less
meanwhile, and the stall appears in one sample only (coordinated omission). Here every request that was due during the
stall counts, as in wrk2; if all connections are busy, a request waits, and its wait counts. All samples are kept.

One thread, one epoll, bytes prepared in advance: asyncio would cost several times as much per request, and this
generator shares its cores with the service. `select` sleeps to the microsecond, `epoll` only to the millisecond.
"""

import gc
import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np

from benchmarks.harness.errors import LoadFailed

_DRAIN_S = 10.0
_RECEIVE_BYTES = 65536
_SEND_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class OpenLoop:
    """The results at a fixed rate. Latencies are of answers 200; `generator_busy` is the generator's use of a core."""

    rate: float
    answered_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    ok: int
    not_ok: int
    """Answers other than 200, lost connections, and requests without an answer 10 s after the last was due."""
    refused: int
    """The failures with status 503."""
    generator_busy: float


@dataclass(frozen=True)
class Trace:
    """When each answer came, in seconds of `time.perf_counter`, and its latency in seconds."""

    answered_at: "array[float]" = field(default_factory=lambda: array("d"))
    latencies: "array[float]" = field(default_factory=lambda: array("d"))


class _Connection:
    __slots__ = ("due", "received", "socket", "wanted")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=10)
        # A whole picture must fit: waiting for a service that reads slowly would lower the rate.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.due = 0.0
        self.received = b""
        self.wanted = 0  # bytes of the whole answer, 0 until its head is complete


def drive_at(
    address: tuple[str, int],
    requests: Sequence[bytes],
    *,
    rate: float,
    connections: int,
    seconds: float,
    settle_s: float = 0.0,
    trace: Trace | None = None,
) -> OpenLoop:
    """Send `rate` requests a second, evenly spaced, for `seconds`. An infinite rate keeps every connection busy.

    Requests due in the `settle_s` before are sent, too, but not counted. `trace` gets every answer 200.
    """
    poller = select.epoll()  # before the sockets: `select` takes no descriptor above 1,023
    pool = [_Connection(address) for _ in range(connections)]
    by_descriptor = {connection.socket.fileno(): connection for connection in pool}
    for descriptor in by_descriptor:
        poller.register(descriptor, select.EPOLLIN)
    try:
        with _no_collections():
            return _drive(
                poller, by_descriptor, requests, trace or Trace(), rate=rate, seconds=seconds, settle_s=settle_s
            )
    finally:
        poller.close()
        for connection in by_descriptor.values():
            connection.socket.close()


def _drive(
    poller: select.epoll,
    by_descriptor: dict[int, _Connection],
    requests: Sequence[bytes],
    trace: Trace,
    *,
    rate: float,
    seconds: float,
    settle_s: float,
) -> OpenLoop:
    clock = time.perf_counter
    free = deque(by_descriptor.values())
    latencies = trace.latencies
    interval = 1 / rate
    not_ok = refused = sent = 0
    kinds = len(requests)
    busy_before, began = time.process_time(), clock()
    counted_from = began + settle_s
    end = counted_from + seconds
    last_answer = counted_from
    due = began
    while True:
        now = clock()
        sending = (due if interval else now) < end
        while free and sending and due <= now:
            connection = free.popleft()
            connection.due = due if interval else now
            _send(connection, requests[sent % kinds])
            sent += 1
            due = began + sent * interval
            sending = (due if interval else now) < end
        all_answered = not sending and len(free) == len(by_descriptor)
        if all_answered or now > end + _DRAIN_S or not by_descriptor:
            break
        wait = max(0.0, due - clock()) if free and sending else 0.1
        select.select([poller], [], [], wait)
        for descriptor, _ in poller.poll(0):
            connection = by_descriptor[descriptor]
            status = _receive(connection)
            if status is None:
                continue
            if connection.due >= counted_from:
                last_answer = clock()
                if status == b"200":
                    trace.answered_at.append(last_answer)
                    latencies.append(last_answer - connection.due)
                else:
                    not_ok += 1
                    refused += status == b"503"
            if status == b"":
                poller.unregister(descriptor)
                connection.socket.close()
                del by_descriptor[descriptor]
            else:
                free.append(connection)
    if not latencies:
        raise LoadFailed("the service answered nothing with 200 in the open loop")
    scheduled = round(rate * seconds) if interval else sent
    p50, p90, p99, p999 = np.percentile(np.frombuffer(latencies), [50, 90, 99, 99.9]) * 1e3
    return OpenLoop(
        rate=rate,
        answered_per_s=len(latencies) / (last_answer - counted_from),
        p50_ms=float(p50),
        p90_ms=float(p90),
        p99_ms=float(p99),
        p999_ms=float(p999),
        max_ms=max(latencies) * 1e3,
        ok=len(latencies),
        not_ok=max(not_ok, scheduled - len(latencies)),
        refused=refused,
        generator_busy=(time.process_time() - busy_before) / (clock() - began),
    )


def _send(connection: _Connection, request: bytes) -> None:
    view = memoryview(request)
    try:
        done = connection.socket.send(view)
    except BlockingIOError:
        done = 0
    except OSError:
        return  # closed by the service: epoll reports it
    if done < len(view):  # a picture larger than the socket's buffer
        connection.socket.settimeout(_DRAIN_S)
        with suppress(OSError):
            connection.socket.sendall(view[done:])
        connection.socket.setblocking(False)


def _receive(connection: _Connection) -> bytes | None:
    """Return the status if the answer is complete, None before, and b"" if the connection is lost."""
    try:
        data = connection.socket.recv(_RECEIVE_BYTES)
    except BlockingIOError:
        return None
    except OSError:
        return b""
    if not data:
        return b""
    received = connection.received + data if connection.received else data
    if not connection.wanted:
        connection.wanted = _wanted(received)
    if not connection.wanted or len(received) < connection.wanted:
        connection.received = received
        return None
    connection.received, connection.wanted = b"", 0
    return received[9:12]


def _wanted(received: bytes) -> int:
    """Return the size of the whole answer, 0 while it is unknown."""
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return 0
    _, declared, rest = head.lower().partition(b"\r\ncontent-length:")
    if declared:
        return len(head) + 4 + int(rest.partition(b"\r\n")[0])
    if b"\r\ntransfer-encoding: chunked" not in head.lower():
        raise LoadFailed("the service says nowhere how long its answer is, which the open loop needs to know")
    return len(received) if body.endswith(b"0\r\n\r\n") else 0  # no JSON ends like this before its last chunk


@contextmanager
def _no_collections() -> Iterator[None]:
    """Disable garbage collection, whose pauses would count as latency."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
