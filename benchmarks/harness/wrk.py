"""Closed loop: load a service with wrk, which posts the prepared requests in turn on every connection.

One thread: it is far from busy at these rates, and takes the least from the cores that it shares with the service. For
the same reason the script has no `response` hook: calling Lua for every answer cost the bare application at least a
fifth of its requests/s. wrk itself counts the statuses from 400 on, and before the load each picture was answered with
200.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.errors import LoadFailed
from benchmarks.harness.request import Body
from benchmarks.harness.workload import WORK

_MARK = "RESULT "
_TIMEOUT_S = 15
_SCRIPT = """-- Written by benchmarks/harness/wrk.py.
local files = {%(files)s}
local requests, turn = {}, 0

function init()
  for index, name in ipairs(files) do
    local file = assert(io.open(name, "rb"))
    requests[index] = file:read("*a")
    file:close()
  end
end

function request()
  turn = turn %% #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '%(mark)s{"requests": %%d, "seconds": %%.6f, "not_ok": %%d, "socket_errors": %%d, ' ..
    '"p50_ms": %%.3f, "p90_ms": %%.3f, "p99_ms": %%.3f, "p999_ms": %%.3f}\\n',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(90) / 1e3,
    latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3))
end
"""


@dataclass(frozen=True)
class Load:
    """wrk's results at a number of connections."""

    connections: int
    requests: int
    requests_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    not_ok: int
    """Answers with status 400 or above, and socket errors, including timeouts."""
    body: Body = "multipart"


def drive(url: str, requests: Sequence[Path], *, connections: int, seconds: float, body: Body = "multipart") -> Load:
    """Load the service for about `seconds`, at least one. Raises LoadFailed."""
    script = WORK / "wrk.lua"
    files = ", ".join(json.dumps(str(file)) for file in requests)
    script.write_text(_SCRIPT % {"files": files, "mark": _MARK}, encoding="utf-8")
    command = [
        *("wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{max(1, round(seconds))}s"),
        *("--timeout", f"{_TIMEOUT_S}s", "--script", str(script), url),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=seconds + 2 * _TIMEOUT_S + 30
        )
    except FileNotFoundError as exc:
        raise LoadFailed("wrk is not installed (on Debian or Ubuntu: apt install wrk)") from exc
    except subprocess.TimeoutExpired as exc:
        raise LoadFailed(f"wrk did not end at {connections} connections") from exc
    line = next((line for line in done.stdout.splitlines() if line.startswith(_MARK)), None)
    if line is None:
        raise LoadFailed(f"wrk: {(done.stderr or done.stdout).strip()[-200:]}")
    found = json.loads(line.removeprefix(_MARK))
    return Load(
        connections=connections,
        requests=found["requests"] - found["not_ok"],
        requests_per_s=(found["requests"] - found["not_ok"]) / found["seconds"],  # a rejection is quick, but no answer
        **{name: found[name] for name in ("p50_ms", "p90_ms", "p99_ms", "p999_ms")},
        not_ok=found["not_ok"] + found["socket_errors"],
        body=body,
    )
