"""The protocol over gRPC: the implemented calls of `inference.GRPCInferenceService`, with HTTP's answers.

It shares catalogue, admission, deadlines, keys, errors and metrics with HTTP. gRPC is imported here and nowhere else in
the service, and only in workers that serve it, after the fork, which its threads would not survive.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import grpc
import structlog
from grpc.aio import ServicerContext

from app.api.errors import status_of
from app.api.guard.access import RPC, Gate
from app.api.guard.keys import RawHeaders
from app.api.inference import Message, Written
from app.api.lifecycle import Lifecycle
from app.api.per_model import PerModel
from app.api.protocols.open_inference import open_inference_pb2 as pb
from app.api.protocols.open_inference.messages import infer_request, infer_response, read, write
from app.api.protocols.open_inference.metadata import model_configuration, model_metadata, server_metadata
from app.api.protocols.open_inference.questions import InferQuestion, readers_of
from app.api.protocols.open_inference.repository import Repository
from app.api.protocols.open_inference.requests import Reader
from app.api.protocols.open_inference.statistics import model_statistics
from app.api.questions import Questions
from app.api.routes.health import require_ready
from app.errors import ImageclassError, Overloaded
from app.metrics import Metrics
from app.serving.classifier import Classifier
from app.tracing.trace import Trace

SERVICE = "inference.GRPCInferenceService"
OPEN_CALLS = ("ServerLive", "ServerReady")
"""These need no key, as their paths over HTTP, for load balancers."""

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    431: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
    505: grpc.StatusCode.UNIMPLEMENTED,
}
"""The gRPC code of each status in the table of errors, `app.api.errors`."""

_log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True)
class Call:
    """One call: its message's bytes, the seconds until the client's deadline, its trace, and its model once known."""

    data: bytes
    timeout_s: float | None
    trace: Trace | None
    model: Classifier | None = None


Answer = Callable[[Call], Awaitable[bytes]]


class OpenInferenceService:
    """Answers calls. `version` is the service's own."""

    def __init__(
        self,
        questions: Questions,
        repository: Repository,
        *,
        gate: Gate,
        lifecycle: Lifecycle,
        metrics: Metrics,
        version: str,
    ) -> None:
        self._questions = questions
        self._inference = questions.inference
        self._readers = readers_of(questions.inference)
        self._catalogue = questions.inference.catalogue
        self._repository = repository
        self._gate = gate
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._version = version

    def handlers(self) -> grpc.GenericRpcHandler:
        answers: Mapping[str, Answer] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._repository_model_load,
            "RepositoryModelUnload": self._repository_model_unload,
        }
        # Without deserializers, so that invalid messages get the usual errors, and the bytes held can be counted.
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                name: grpc.unary_unary_rpc_method_handler(self._guarded(name, answer))
                for name, answer in answers.items()
            },
        )

    def _guarded(self, name: str, answer: Answer) -> Callable[[bytes, ServicerContext[Any, Any]], Awaitable[bytes]]:
        """Wrap a call's handler in the access checks, metrics, log and errors that HTTP requests get."""
        path = f"/{SERVICE}/{name}"

        async def call(data: bytes, context: ServicerContext[Any, Any]) -> bytes:
            began = perf_counter()
            headers = _headers(context)
            request_id = self._gate.request_id(headers)
            context.set_trailing_metadata((("x-request-id", request_id),))
            trace = None if name in OPEN_CALLS else self._gate.trace(path, headers, began)
            asked = Call(data, context.time_remaining(), trace)
            status, code = 200, None
            try:
                if name not in OPEN_CALLS:
                    self._gate.check_key(headers)
                return await answer(asked)
            except ImageclassError as exc:
                status, code = status_of(exc), exc.code
                if status == 500:
                    _log.error("request failed", request_id=request_id, code=code, exc_info=exc)
                self._describe(exc, request_id, context)
            except Exception as exc:  # noqa: BLE001 - the client gets any error in the same form
                status, code = 500, ImageclassError.code
                _log.error("defect", request_id=request_id, exc_info=exc)
                context.set_code(grpc.StatusCode.INTERNAL)
                context.set_details("Something failed inside the service. Its log says what, under this x-request-id.")
            finally:
                self._gate.note(
                    request_id=request_id,
                    method=RPC,
                    path=path,
                    route=path,
                    status=status,
                    code=code,
                    seconds=perf_counter() - began,
                    trace=trace,
                    model="" if asked.model is None else asked.model.name,
                    version="" if asked.model is None else asked.model.version,
                )
            return b""

        return call

    def _describe(self, error: ImageclassError, request_id: str, context: ServicerContext[Any, Any]) -> None:
        context.set_code(CODES[status_of(error)])
        context.set_details(str(error))
        trailing = [("x-request-id", request_id), ("x-error-code", error.code)]
        if isinstance(error, Overloaded):
            # By default, retrying clients would retry within a tenth of a second.
            trailing.append(("grpc-retry-pushback-ms", str(error.retry_after_s * 1000)))
        context.set_trailing_metadata(tuple(trailing))

    async def _server_live(self, _: Call) -> bytes:
        return write(pb.ServerLiveResponse, {"live": True})

    async def _server_ready(self, _: Call) -> bytes:
        require_ready(self._lifecycle, self._metrics)
        return write(pb.ServerReadyResponse, {"ready": True})

    async def _model_ready(self, call: Call) -> bytes:
        self._model_of(read(pb.ModelReadyRequest, call.data))
        require_ready(self._lifecycle, self._metrics)
        return write(pb.ModelReadyResponse, {"ready": True})

    async def _server_metadata(self, _: Call) -> bytes:
        return write(pb.ServerMetadataResponse, server_metadata(self._version))

    async def _model_metadata(self, call: Call) -> bytes:
        model = self._model_of(read(pb.ModelMetadataRequest, call.data))
        return write(pb.ModelMetadataResponse, model_metadata(model))

    async def _model_config(self, call: Call) -> bytes:
        model = self._model_of(read(pb.ModelConfigRequest, call.data))
        config = model_configuration(model, max_batch_pictures=self._inference.limits.max_batch_pictures)
        return write(pb.ModelConfigResponse, {"config": config})

    async def _model_statistics(self, call: Call) -> bytes:
        asked = read(pb.ModelStatisticsRequest, call.data)
        models = [self._model_of(asked)] if asked.name else self._catalogue.models
        return write(pb.ModelStatisticsResponse, model_statistics(self._metrics, models))

    async def _repository_index(self, call: Call) -> bytes:
        asked = read(pb.RepositoryIndexRequest, call.data)
        return write(pb.RepositoryIndexResponse, {"models": await self._repository.index(only_ready=asked.ready)})

    async def _repository_model_load(self, call: Call) -> bytes:
        asked = read(pb.RepositoryModelLoadRequest, call.data)
        await self._repository.load(asked.model_name, asked.parameters)
        return write(pb.RepositoryModelLoadResponse, {})

    async def _repository_model_unload(self, call: Call) -> bytes:
        await self._repository.unload(read(pb.RepositoryModelUnloadRequest, call.data).model_name)
        return write(pb.RepositoryModelUnloadResponse, {})

    async def _model_infer(self, call: Call) -> bytes:
        inference = self._inference
        inference.admission.check_place()
        question = RpcInfer(self._questions, self._readers, read(pb.ModelInferRequest, call.data))
        call.model = inference.catalogue.get(question.model, question.version)
        written = await inference.answer_arrived(
            question, size=len(call.data), timeout_s=call.timeout_s, trace=call.trace
        )
        return written.body

    def _model_of(
        self, asked: pb.ModelReadyRequest | pb.ModelMetadataRequest | pb.ModelConfigRequest | pb.ModelStatisticsRequest
    ) -> Classifier:
        return self._catalogue.get(asked.name, asked.version or None)


class RpcInfer(InferQuestion):
    """A question whose message is already parsed: `read` ignores the body."""

    def __init__(self, questions: Questions, readers: PerModel[Reader], message: pb.ModelInferRequest) -> None:
        super().__init__(questions, readers, message.model_name, message.model_version or None)
        self._message = message

    def read(self, _: bytes, model: Classifier) -> Message:
        asked = self.asked = infer_request(self._message, self.reader_of(model))
        return asked.pictures, asked.timeout_s

    def write(self, model: Classifier, outcomes: Sequence[Any]) -> Written:
        tensors = self.tensors(model, outcomes)
        return Written(infer_response(self.asked, tensors, model=model.name, version=model.version))


def _headers(context: ServicerContext[Any, Any]) -> RawHeaders:
    return [
        (name.encode(), value if isinstance(value, bytes) else value.encode())
        for name, value in context.invocation_metadata() or ()
    ]
