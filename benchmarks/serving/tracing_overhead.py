"""Measure the CPU time per request without tracing, with a sampled share traced, and with all traced, alternately."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from threading import Thread

from benchmarks.harness.contestant import Contestant, ours
from benchmarks.harness.service import running
from benchmarks.harness.workload import Workload
from benchmarks.serving.sampling import warm_up

TracingRound = dict[str, float]
"""Microseconds of CPU time per request, by tracing mode; each round measures the modes one after another."""

_OFF = "off"
_TUNED_ALIKE = {
    "IMAGECLASS_INFERENCE_PLACE": "loop",
    "IMAGECLASS_MAX_BATCH_SIZE": "1",
    "IMAGECLASS_INLINE_DECODE_PIXELS": "4096",
}
"""Each service tunes itself at its start, which would cost or gain more than tracing does."""


def measure_tracing_overhead(
    workload: Workload, *, share: float, workers: int, rounds: int, seconds: float
) -> list[TracingRound]:
    """Load services that run side by side, in turns. Raises a BenchmarkError."""
    own = ours("openvino", workers=workers)
    off = replace(own, variables={**own.variables, **_TUNED_ALIKE, "OTEL_SDK_DISABLED": "true"})
    found = []
    with ExitStack() as stack:
        collector = stack.enter_context(_collecting())
        contestants = {
            _OFF: off,
            f"{share:.0%}": _traced(off, collector, share),
            "all": _traced(off, collector, 1.0),
        }
        services = {name: stack.enter_context(running(each, workload)) for name, each in contestants.items()}
        for service in services.values():
            warm_up(workload, service, seconds=2)
        # The spans of a load are sent up to five seconds later: what a service does until its next load ends counts.
        before = {name: service.tree.cpu_seconds() for name, service in services.items()}
        for number in range(rounds):
            measured = {}
            for name in list(services) if number % 2 else list(services)[::-1]:
                requests = warm_up(workload, services[name], seconds=seconds).requests
                after = services[name].tree.cpu_seconds()
                measured[name] = (after - before[name]) / requests * 1e6
                before[name] = after
            found.append({name: measured[name] for name in services})
            print(", ".join(f"{name} {us:.1f} µs" for name, us in found[-1].items()), flush=True)
    return found


def tracing_overhead_line(rounds: Sequence[TracingRound]) -> str:
    off = median(each[_OFF] for each in rounds)
    costs = []
    for name in list(rounds[0])[1:]:
        shares = sorted(each[name] / each[_OFF] - 1 for each in rounds)
        costs.append(f"{name} {median(shares):+.1%} ({shares[0]:+.1%} to {shares[-1]:+.1%})")
    return f"A request takes {off:.1f} µs of CPU with tracing off; traced: {', '.join(costs)}. {len(rounds)} rounds."


def _traced(contestant: Contestant, collector: str, share: float) -> Contestant:
    variables = {
        "OTEL_SDK_DISABLED": "false",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": str(share),
    }
    return replace(
        contestant, name=f"{contestant.name}-traced-{share}", variables={**contestant.variables, **variables}
    )


@contextmanager
def _collecting() -> Iterator[str]:
    """Run a collector that drops what it is sent, in this process: its CPU time is not the services'."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield "http://{}:{}".format(*server.server_address[:2])
        server.shutdown()
