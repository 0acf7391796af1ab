"""Talk to a real service as clients of every kind do: `python -m tests.connections --requests 2000000 --seed 1`."""

import argparse
import asyncio
import json
import logging
import os
import re
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import uvloop

from tests.connections.asked import MAX_HEADER_BYTES, MAX_UPLOAD_BYTES, Picture, Requests
from tests.connections.crowd import KEEP_ALIVE_S, RECEIVE_TIMEOUT_S, REQUEST_TIMEOUT_S, Crowd
from tests.end_to_end.conftest import Service

_REPOSITORY = Path(__file__).parents[2]
_WORKERS = 2
_REPORT_EVERY_S = 30.0
_SETTLES_WITHIN_S = 20.0
_GAUGES = ("imageclass_pending_pictures", "imageclass_pending_bytes", "imageclass_admission_corrections_total")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.connections", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--model-store", type=Path, default=_REPOSITORY / "model_store")
    given = parser.parse_args()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    watched = Watched(given.model_store)
    try:
        return uvloop.run(_run(watched, requests=given.requests, seed=given.seed))
    finally:
        watched.stop()


async def _run(watched: "Watched", *, requests: int, seed: int) -> int:
    began = time.monotonic()
    crowd = Crowd(watched.address, watched.requests(), seed=seed)
    await crowd.run(min(requests, 20_000))  # after which memory and files are what they stay
    before = watched.state()
    _say(f"seed {seed}; after {crowd.counts['requests sent']:,} requests: {before}")
    reporting = asyncio.create_task(_report(crowd, watched, began))
    await crowd.run(requests)
    reporting.cancel()
    after = watched.state(files=before.files)
    seconds = time.monotonic() - began
    _say(f"\n{seconds:,.0f} s, {crowd.counts['requests sent'] / seconds:,.0f} requests/s")
    for name, count in sorted(crowd.counts.items()):
        _say(f"{count:>14,} {name}")
    for status, count in sorted(crowd.statuses.items()):
        _say(f"{count:>14,} answers {status}")
    _say(f"before: {before}\nafter:  {after}")
    problems = [str(violation) for violation in crowd.violations] + watched.defects
    if not after.is_clean() or after.files != before.files:
        problems.append("the service holds something that nobody uses")
    for problem in problems:
        _say(f"\nDEFECT: {problem}")
    _say(f"{len(problems)} defects")
    return 1 if problems else 0


async def _report(crowd: Crowd, watched: "Watched", began: float) -> None:
    while True:
        await asyncio.sleep(_REPORT_EVERY_S)
        rate = crowd.counts["requests sent"] / (time.monotonic() - began)
        memory = " + ".join(f"{size:.0f}" for size in watched.memory_mb())
        _say(f"{crowd.counts['requests sent']:>14,} requests, {rate:,.0f}/s, {memory} MB")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@dataclass(frozen=True)
class State:
    """What a service holds while nobody asks it anything."""

    gauges: dict[str, float]
    connections: float
    """Besides the one that asks."""
    files: list[int]
    """Open ones of each worker."""
    memory_mb: list[float]

    def is_clean(self) -> bool:
        return not any(self.gauges.values()) and self.connections <= 0

    def __str__(self) -> str:
        gauges = ", ".join(f"{name.removeprefix('imageclass_')} {value:g}" for name, value in self.gauges.items())
        memory = " + ".join(f"{size:.0f}" for size in self.memory_mb)
        return f"{gauges}, connections {self.connections:g}, open files {self.files}, memory {memory} MB"


class Watched:
    """A service in processes of its own, and what it logs."""

    def __init__(self, store: Path) -> None:
        self._service = Service(
            store,
            workers=_WORKERS,
            max_pending=16,
            max_upload_bytes=MAX_UPLOAD_BYTES,
            max_header_bytes=MAX_HEADER_BYTES,
            receive_timeout_s=RECEIVE_TIMEOUT_S,
            keep_alive_s=KEEP_ALIVE_S,
            request_timeout_s=REQUEST_TIMEOUT_S,
            log_format="json",
        )
        self._service.wait_until_ready(_WORKERS)
        self._processes = list(self._service.workers.values())
        self._client = httpx.Client(base_url=self._service.url, headers={"Connection": "close"}, timeout=60)
        self.defects: list[str] = []
        self._log = threading.Thread(target=self._read_log)
        self._log.start()

    @property
    def address(self) -> tuple[str, int]:
        url = httpx.URL(self._service.url)
        return url.host, url.port or 80

    def requests(self) -> Requests:
        pictures = []
        for file in sorted((_REPOSITORY / "tests" / "data").glob("[0-9]-*.png"))[::8]:
            answer = self._client.post("/predict", content=file.read_bytes(), headers={"Content-Type": "image/png"})
            pictures.append(Picture(file.read_bytes(), answer.json()["label"]))
        return Requests(pictures, answer.json()["model"]["name"])

    def state(self, *, files: list[int] | None = None) -> State:
        """Return what the service holds when it has ended all connections, and has `files` open if they are given."""
        end = time.monotonic() + _SETTLES_WITHIN_S
        while True:
            state = self._state_now()
            if (state.is_clean() and files in (None, state.files)) or time.monotonic() > end:
                return state

    def memory_mb(self) -> list[float]:
        pages = (int(Path(f"/proc/{process}/statm").read_bytes().split()[1]) for process in self._processes)
        return [count * os.sysconf("SC_PAGE_SIZE") / 1e6 for count in pages]

    def stop(self) -> None:
        self._client.close()
        self._service.process.terminate()
        self._log.join()
        self._service.process.wait()

    def _state_now(self) -> State:
        assert self._client.get("/health").status_code == 200
        text = self._client.get("/metrics").text
        return State(
            {name: _sum_of(text, name) for name in _GAUGES},
            _sum_of(text, "imageclass_connections") - 1,
            [sum(1 for _ in Path(f"/proc/{process}/fd").iterdir()) for process in self._processes],
            self.memory_mb(),
        )

    def _read_log(self) -> None:
        assert self._service.process.stderr is not None
        for line in self._service.process.stderr:
            if json.loads(line)["level"] in {"error", "critical"}:
                self.defects.append(line.rstrip())


def _sum_of(text: str, name: str) -> float:
    return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))


if __name__ == "__main__":
    sys.exit(main())
