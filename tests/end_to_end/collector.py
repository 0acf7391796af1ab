"""A collector of traces in a process of its own, as far as OTLP over HTTP needs one: it keeps what it is sent.

`python -m tests.end_to_end.collector PORT FILE` appends a line of JSON to the file for each span.
"""

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector:
    """A running collector and the spans that it has been sent."""

    def __init__(self, url: str, file: Path) -> None:
        self.url = url
        self._file = file

    @property
    def spans(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._file.read_text().splitlines()]


@contextmanager
def collecting(port: int, folder: Path) -> Iterator[Collector]:
    """Run a collector on this port of 127.0.0.1."""
    file = folder / "spans.jsonl"
    file.touch()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.end_to_end.collector", str(port), str(file)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield Collector(f"http://127.0.0.1:{port}", file)
    finally:
        process.kill()
        process.communicate()


def _main(port: int, file: Path) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            assert self.headers["content-type"] == "application/x-protobuf"
            data = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                data = gzip.decompress(data)
            lines = [json.dumps(span) + "\n" for span in _spans(ExportTraceServiceRequest.FromString(data))]
            with file.open("a") as output:
                output.write("".join(lines))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve_forever()


def _spans(message: ExportTraceServiceRequest) -> Iterator[dict[str, Any]]:
    for of_resource in message.resource_spans:
        resource = _attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield {
                    "resource": resource,
                    "name": span.name,
                    "trace": span.trace_id.hex(),
                    "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "kind": Span.SpanKind.Name(span.kind),
                    "attributes": _attributes(span.attributes),
                    "links": [link.span_id.hex() for link in span.links],
                    "seconds": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                }


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair) for pair in pairs}


def _value(pair: KeyValue) -> Any:
    kind = pair.value.WhichOneof("value")
    return None if kind is None else getattr(pair.value, kind)


if __name__ == "__main__":
    _main(int(sys.argv[1]), Path(sys.argv[2]))
