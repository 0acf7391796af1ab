"""Clients that ask without a pause, each on a connection of its own, and count what they are answered."""

import http.client
import json
import threading
import time
from collections import Counter
from itertools import pairwise
from types import TracebackType
from typing import Self


class Load:
    """Ask until the end of the block. `statuses` counts answers by status; 0 stands for a lost connection."""

    def __init__(self, port: int, path: str, body: bytes, content_type: str, clients: int = 8) -> None:
        self._request = (port, path, body, {"Content-Type": content_type})
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        self.statuses: Counter[int] = Counter()
        self.versions: Counter[int] = Counter()
        self.answered_at: list[float] = []
        self.complaints: Counter[str] = Counter()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def answers(self) -> int:
        return self.statuses[200]

    @property
    def failures(self) -> Counter[int]:
        return Counter({status: count for status, count in self.statuses.items() if status != 200})

    def __str__(self) -> str:
        failed = f"failed {dict(self.failures)} {dict(self.complaints)}"
        return f"{self.answers} answers {dict(self.versions)}, {failed}, longest stall {self.longest_stall_s:.3f} s"

    @property
    def longest_stall_s(self) -> float:
        """The longest time in which nobody was answered with 200."""
        times = sorted(self.answered_at)
        return max(later - earlier for earlier, later in pairwise(times))

    def wait_for(self, answers: int, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while self.answers < answers and time.monotonic() < deadline:
            time.sleep(0.05)

    def _ask(self) -> None:
        port, path, body, headers = self._request
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        while not self._over.is_set():
            status, version = 0, 0
            try:
                connection.request("POST", path, body, headers)
                answer = connection.getresponse()
                status, content = answer.status, answer.read()
                if status == http.HTTPStatus.OK:
                    version = json.loads(content)["model"]["version"]
                else:
                    self.complaints[content.decode(errors="replace")[:200]] += 1
            except (OSError, http.client.HTTPException) as exc:
                self.complaints[repr(exc)] += 1
                connection.close()
            with self._lock:
                self.statuses[status] += 1
                if status == http.HTTPStatus.OK:
                    self.versions[version] += 1
                    self.answered_at.append(time.monotonic())
