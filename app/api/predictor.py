"""From the body of a request to the JSON of its answer: read, delegate, shape.

Both ways into `POST /predict` end here: FastAPI's route and the fast path. It knows bodies and JSON, no status codes.
"""

from collections.abc import Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.types import Receive

from app.api.answers import Answers
from app.api.bodies.uploads import picture_of, read_picture, read_pictures
from app.api.gathering import Gathering
from app.api.inference import OF_ONE_PICTURE, Inference, asked_seconds, unless_gone
from app.api.server_timing import of_many, of_one
from app.errors import ImageclassError, InferenceFailed
from app.serving.admission import Admission, Lease
from app.serving.batcher import Reply, RowFuture
from app.serving.classifier import Classifier


class Answered(NamedTuple):
    """An answer as JSON, the model whose version it names, where its time went, and what failed in it that only the
    operator can mend."""

    body: bytes
    model: Classifier
    server_timing: bytes
    failures: Sequence[InferenceFailed] = ()


class Predictor:
    """Answers requests to `/predict` and `/predict/batch`."""

    def __init__(self, inference: Inference, *, max_form_fields: int) -> None:
        self._inference = inference
        self._catalogue = inference.catalogue
        self._limits = inference.limits
        self._answers: dict[Classifier, Answers] = {}
        self._max_form_fields = max_form_fields

    @property
    def admission(self) -> Admission:
        return self._catalogue.admission

    def model(self, name: str | None) -> Classifier:
        """Return the model of that name, or the default one. Raises ModelNotFound or ModelNotNamed."""
        return self._catalogue.get(name)

    def begin(
        self, model: Classifier, body: bytes, reply: Reply, *, content_type: str, asked_timeout: str, read_s: float
    ) -> Lease:
        """Have the picture of a whole body classified: `reply` gets its probabilities, and owns the lease for `end`.

        `asked_timeout` is what the client asks for, `read_s` how long its request took to arrive. Raises an
        ImageclassError, after which nothing has begun.
        """
        lease = self._catalogue.admission.enter(reply, size=len(body))
        try:
            deadline = self._deadline(asked_timeout)
            picture = picture_of(
                body,
                content_type=content_type,
                field="file",
                max_bytes=self._limits.max_upload_bytes,
                max_fields=self._max_form_fields,
            )
            model.put(picture, reply, deadline=deadline)
        except BaseException:
            lease.end()
            raise
        model.observe_read(read_s)
        return lease

    def answer(self, model: Classifier, probabilities: NDArray[np.float32], top_k: int | None) -> bytes:
        """Return `PredictionAnswer` as JSON."""
        return self._answers_of(model).answer(probabilities, top_k)

    def end(self, model: Classifier, reply: Reply, lease: Lease) -> None:
        """End what `begin` began: the reply has been answered, or nobody waits for it."""
        model.withdraw(reply)
        lease.end()

    async def predict(
        self,
        model: Classifier,
        receive: Receive,
        *,
        content_type: str,
        content_length: str,
        asked_timeout: str,
        top_k: int | None,
    ) -> Answered:
        """Return `PredictionAnswer` as JSON. Raises an ImageclassError, or ClientDisconnect."""
        began = perf_counter()
        with self._catalogue.admission.receive() as received:
            picture = await read_picture(
                receive,
                content_type=content_type,
                content_length=content_length,
                field="file",
                max_bytes=self._limits.max_upload_bytes,
                max_fields=self._max_form_fields,
                received=received,
            )
            deadline = self._deadline(asked_timeout)
            model = self._catalogue.get(model.name)  # another version may have gone live meanwhile
            read_s = perf_counter() - began
            model.observe_read(read_s)
            with self._catalogue.admission.admit():
                reply = RowFuture()
                model.put(picture, reply, deadline=deadline)  # in this turn of the loop, in which the model is live
                try:
                    probabilities = await unless_gone(receive, reply)
                finally:
                    model.withdraw(reply)
        return Answered(self.answer(model, probabilities, top_k), model, of_one(reply, read_s))

    async def predict_batch(
        self,
        model: Classifier,
        receive: Receive,
        *,
        content_type: str,
        content_length: str,
        asked_timeout: str,
        top_k: int | None,
    ) -> Answered:
        """Return `BatchAnswer` as JSON. Raises an ImageclassError, or ClientDisconnect."""
        began = perf_counter()
        with self._catalogue.admission.receive() as received:
            uploads = await read_pictures(
                receive,
                content_type=content_type,
                content_length=content_length,
                field="files",
                max_bytes=self._limits.max_batch_bytes,
                max_pictures=self._limits.max_batch_pictures,
                max_fields=self._max_form_fields,
                received=received,
            )
            deadline = self._deadline(asked_timeout)
            model = self._catalogue.get(model.name)
            read_s = perf_counter() - began
            model.observe_read(read_s)
            with self._catalogue.admission.admit(len(uploads)):
                pictures = [upload.data for upload in uploads]
                gathering = self._begin_all(model, pictures, deadline)
                try:
                    outcomes = await unless_gone(receive, gathering.outcomes)
                finally:
                    for reply in gathering.replies:
                        model.withdraw(reply)
        answers = self._answers_of(model)
        entries = []
        for upload, outcome in zip(uploads, outcomes, strict=True):
            if isinstance(outcome, OF_ONE_PICTURE):
                failure = {"file": upload.filename, "error": str(outcome), "code": outcome.code}
                entries.append(orjson.dumps(failure))
            elif isinstance(outcome, Exception):
                raise outcome  # it concerns the whole request
            else:
                entries.append(answers.entry(upload.filename, outcome, top_k))
        failures = [outcome for outcome in outcomes if isinstance(outcome, InferenceFailed)]
        body = b'{"predictions":[%b],"model":%b}' % (b",".join(entries), answers.model)
        return Answered(body, model, of_many(gathering.replies, read_s), failures)

    def _begin_all(self, model: Classifier, pictures: list[bytes], deadline: float) -> Gathering:
        """Have each picture classified; its outcome is its probabilities, or why there are none."""
        gathering = Gathering(len(pictures))
        for picture, reply in zip(pictures, gathering.replies, strict=True):
            try:
                self._inference.put(model, picture, reply, deadline)
            except ImageclassError as exc:
                reply.set_exception(exc)
        return gathering

    def _answers_of(self, model: Classifier) -> Answers:
        answers = self._answers.get(model)
        if answers is None:
            # Another version is live: forget those that are not, but for one that still answers what it had accepted.
            answering = [*self._catalogue.models, model]
            self._answers = {each: self._answers.get(each) or Answers(each.manifest) for each in answering}
            answers = self._answers[model]
        return answers

    def _deadline(self, asked: str) -> float:
        return self._inference.deadline(asked_seconds(asked))
