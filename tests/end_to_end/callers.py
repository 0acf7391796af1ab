"""Clients for the worst day: without retries, on real sockets, and careful about what was lost."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 60


class ConnectionBroke(Exception):
    """The connection ended before the answer to a request had come whole."""


class Connection:
    """An HTTP/1.1 connection that is kept alive, and let go of where the server says that it closes it."""

    def __init__(self, address: tuple[str, int], timeout_s: float = TIMEOUT_S) -> None:
        self._sock = socket.create_connection(address, timeout=timeout_s)
        self._stream = self._sock.makefile("rb")
        self.closes = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request and return status and body. Raises ConnectionBroke."""
        self.send(request)
        return self.answer()

    def send(self, data: bytes) -> None:
        """Send a request or a part of one. Raises ConnectionBroke."""
        try:
            self._sock.sendall(data)
        except OSError as exc:
            raise ConnectionBroke(repr(exc)) from exc

    def end_sending(self) -> None:
        """Close this side; the other may still answer. Raises ConnectionBroke."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as exc:
            raise ConnectionBroke(repr(exc)) from exc

    def answer(self, *, to_head: bool = False) -> tuple[int, bytes]:
        """Return status and body of the next answer, which may be 100 Continue. Raises ConnectionBroke."""
        try:
            status = self._stream.readline().split(b" ", 2)
            if len(status) < 3:
                raise ConnectionBroke("no answer")
            headers = {}
            while line := self._stream.readline().rstrip(b"\r\n"):
                name, _, value = line.partition(b": ")
                headers[name.lower()] = value
            length = 0 if to_head or status[1] == b"100" else int(headers[b"content-length"])
            body = self._stream.read(length)
        except (OSError, KeyError) as exc:
            raise ConnectionBroke(repr(exc)) from exc
        if len(body) < length:
            raise ConnectionBroke("half an answer")
        self.closes = headers.get(b"connection") == b"close"
        return int(status[1]), body

    def close(self) -> None:
        self._stream.close()
        self._sock.close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def until(condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    """Ask until it is so."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it has not become so"
        time.sleep(0.01)


def total(page: str, name: str, **labels: str) -> float:
    """The sum of a metric's series that have these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def address_of(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode()


def post(picture: bytes) -> bytes:
    head = f"POST /predict HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\nContent-Length: {len(picture)}\r\n\r\n"
    return head.encode() + picture


class Callers:
    """Threads that ask again and again until the block ends, and count what became of each request.

    A connection is used again until an answer says that it closes. `pick` says where to open the next one.
    """

    def __init__(self, pick: Callable[[], tuple[str, int]], request: bytes, *, count: int = 6) -> None:
        self._pick = pick
        self._request = request
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(count)]
        self._lock = threading.Lock()
        self.outcomes: Counter[str] = Counter()
        self.bodies: Counter[bytes] = Counter()
        self.seconds: list[float] = []
        """What each answer with 200 took."""
        self.longest_s = 0.0
        self.longest_stall_s = 0.0
        """The longest time in which nobody was answered with 200."""

    def __enter__(self) -> Self:
        self._answered_at = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()
        self._note_stall()

    @property
    def answered(self) -> int:
        return self.outcomes["200"]

    @property
    def failed(self) -> dict[str, int]:
        return {outcome: count for outcome, count in self.outcomes.items() if outcome != "200"}

    def wait_for_answers(self, count: int) -> None:
        """Return when so many more requests have been answered."""
        goal, end = self.answered + count, time.monotonic() + TIMEOUT_S
        while self.answered < goal:
            assert time.monotonic() < end, f"no more answers; so far: {self.outcomes}"
            time.sleep(0.01)

    def _call(self) -> None:
        connection = None
        while not self._ending.is_set():
            began = time.monotonic()
            try:
                connection = connection or Connection(self._pick())
                status, body = connection.ask(self._request)
                outcome = str(status)
            except ConnectionBroke as exc:
                outcome, body = f"broke: {exc}", b""
            except OSError as exc:
                outcome, body = f"not connected: {exc!r}", b""
            with self._lock:
                self.outcomes[outcome] += 1
                self.longest_s = max(self.longest_s, time.monotonic() - began)
                if outcome == "200":
                    self.bodies[body] += 1
                    self.seconds.append(time.monotonic() - began)
                    self._note_stall()
            if outcome != "200" or (connection is not None and connection.closes):
                if connection is not None:
                    connection.close()
                connection = None
        if connection is not None:
            connection.close()

    def _note_stall(self) -> None:
        now = time.monotonic()
        self.longest_stall_s = max(self.longest_stall_s, now - self._answered_at)
        self._answered_at = now


class Balancer:
    """Picks one of the instances that were ready when last asked; it asks each on a new connection, as most do."""

    def __init__(self, interval_s: float = 0.05) -> None:
        self._interval_s = interval_s
        self._urls: list[str] = []
        self._ready: list[str] = []
        self._turn = 0
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(TIMEOUT_S)

    def add(self, url: str) -> None:
        with self._lock:
            self._urls.append(url)

    def remove(self, url: str) -> None:
        with self._lock:
            self._urls.remove(url)

    def ready(self) -> list[str]:
        return list(self._ready)

    def pick(self) -> tuple[str, int]:
        with self._lock:
            self._turn += 1
            return address_of(self._ready[self._turn % len(self._ready)])

    def _watch(self) -> None:
        while not self._ending.wait(self._interval_s):
            with self._lock:
                urls = list(self._urls)
            ready = [url for url in urls if is_ready(url)]
            with self._lock:
                self._ready = ready


def health(url: str) -> tuple[int, dict[str, object]]:
    """Return what /health/ready answers on a connection of its own; status 0 where nobody answers."""
    try:
        connection = Connection(address_of(url))
    except OSError:
        return 0, {}
    try:
        status, body = connection.ask(get("/health/ready"))
        return status, json.loads(body)
    except ConnectionBroke:
        return 0, {}
    finally:
        connection.close()


def is_ready(url: str) -> bool:
    return health(url)[0] == 200
