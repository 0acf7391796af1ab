"""Answer a request that FastAPI has routed, by the same lifecycle for every protocol over HTTP."""

from collections.abc import Callable

from fastapi import Request
from starlette.responses import Response

from app.api.bodies.content_coding import Inflater, content_encoding, inflater_of, reject_coding
from app.api.bodies.uploads import read_body
from app.api.errors import log_failure
from app.api.guard.request_context import note_model
from app.api.inference import Inference, Question, asked_seconds
from app.api.server_timing import SERVER_TIMING_HEADER
from app.serving.classifier import Classifier
from app.tracing.trace import Trace


async def answer_request(
    inference: Inference, request: Request, question: Question, *, max_bytes: int, may_be_compressed: bool = True
) -> Response:
    """Answer a question whose message is the request's body of at most `max_bytes`. Raises an ImageclassError."""
    source = HttpSource(request, max_bytes=max_bytes, may_be_compressed=may_be_compressed)
    written, _, timing = await inference.answer(question, source)
    for failure in written.failures:
        log_failure(request, failure)
    headers = {SERVER_TIMING_HEADER: timing.decode("ascii"), **dict(written.headers)}
    return Response(written.body, media_type=written.media_type, headers=headers)


class HttpSource:
    """The Source of a request over HTTP."""

    def __init__(self, request: Request, *, max_bytes: int, may_be_compressed: bool = True) -> None:
        self._request = request
        self._max_bytes = max_bytes
        self._may_be_compressed = may_be_compressed
        self._inflater: Inflater | None = None
        self.receive = request.receive
        self.trace: Trace | None = request.state.trace

    def about(self, model: Classifier) -> None:
        note_model(self._request, model)

    def check(self) -> float | None:
        headers = self._request.headers
        coding = content_encoding(headers)
        if self._may_be_compressed:
            self._inflater = inflater_of(coding)
        else:
            reject_coding(coding)
        return asked_seconds(headers.get("x-request-timeout", ""))

    async def read(self, received: Callable[[int], None]) -> bytes:
        length = self._request.headers.get("content-length", "")
        return await read_body(self._request.receive, length, self._max_bytes, received, self._inflater)


async def read_small_body(inference: Inference, request: Request) -> bytes:
    """Return the whole body of a request that holds no pictures, inflated. Raises an ImageclassError."""
    source = HttpSource(request, max_bytes=inference.limits.max_batch_bytes)
    source.check()
    with inference.admission.receive() as received:
        return await source.read(received)
