"""From the body of a request to the JSON of its answer: read, delegate, shape.

Both ways into `POST /predict` end here: FastAPI's route and the fast path. It knows bodies and JSON, no status codes.
"""

import asyncio

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.types import Receive

from app.api.answers import Answers
from app.api.uploads import picture_of, read_picture, read_pictures
from app.errors import ImageclassError, ImageError, InferenceFailed, UploadTooLarge
from app.serving.batcher import Reply
from app.serving.catalogue import Catalogue
from app.serving.classifier import Classifier

_Outcome = NDArray[np.float32] | Exception
_OF_ONE_PICTURE = (ImageError, InferenceFailed, UploadTooLarge)
"""What is wrong with one picture of a batch, and no reason to fail the others."""


class Predictor:
    """Answers requests with the models of a catalogue, under the limits of the settings."""

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        request_timeout_s: float,
        max_upload_bytes: int,
        max_batch_bytes: int,
        max_batch_pictures: int,
    ) -> None:
        self._catalogue = catalogue
        self._answers: dict[Classifier, Answers] = {}
        self._request_timeout_s = request_timeout_s
        self._max_upload_bytes = max_upload_bytes
        self._max_batch_bytes = max_batch_bytes
        self._max_batch_pictures = max_batch_pictures

    def begin(self, body: bytes, reply: Reply, *, content_type: str, model: str | None) -> Classifier:
        """Have the picture of a whole body classified: `reply` gets its probabilities. `end` must follow.

        Raises an ImageclassError, after which nothing has begun.
        """
        classifier = self._catalogue.get(model)
        self._catalogue.admission.enter()
        try:
            picture = picture_of(body, content_type=content_type, field="file", max_bytes=self._max_upload_bytes)
            classifier.put(picture, reply, deadline=self._deadline())
        except BaseException:
            self._catalogue.admission.leave()
            raise
        return classifier

    def answer(self, classifier: Classifier, probabilities: NDArray[np.float32], top_k: int | None) -> bytes:
        """Return `PredictionAnswer` as JSON."""
        return self._answers_of(classifier).answer(probabilities, top_k)

    def end(self, classifier: Classifier, reply: Reply) -> None:
        """Free what `begin` took: the reply has been answered, or is no longer waited for."""
        classifier.withdraw(reply)
        self._catalogue.admission.leave()

    async def predict(
        self, receive: Receive, *, content_type: str, content_length: str, model: str | None, top_k: int | None
    ) -> bytes:
        """Return `PredictionAnswer` as JSON. Raises an ImageclassError, or ClientDisconnect."""
        self._catalogue.get(model)  # before its body is read
        with self._catalogue.admission.admit():
            picture = await read_picture(
                receive,
                content_type=content_type,
                content_length=content_length,
                field="file",
                max_bytes=self._max_upload_bytes,
            )
            classifier = self._catalogue.get(model)  # another version may have gone live meanwhile
            probabilities = await classifier.classify(picture, deadline=self._deadline())
        return self.answer(classifier, probabilities, top_k)

    async def predict_batch(
        self, receive: Receive, *, content_type: str, content_length: str, model: str | None, top_k: int | None
    ) -> bytes:
        """Return `BatchAnswer` as JSON. Raises an ImageclassError, or ClientDisconnect."""
        self._catalogue.get(model)
        uploads = await read_pictures(
            receive,
            content_type=content_type,
            content_length=content_length,
            field="files",
            max_bytes=self._max_batch_bytes,
            max_pictures=self._max_batch_pictures,
        )
        with self._catalogue.admission.admit(len(uploads)):
            classifier = self._catalogue.get(model)
            outcomes = await self._classify_all(classifier, [upload.data for upload in uploads])
        answers = self._answers_of(classifier)
        entries = []
        for upload, outcome in zip(uploads, outcomes, strict=True):
            if isinstance(outcome, _OF_ONE_PICTURE):
                failure = {"file": upload.filename, "error": str(outcome), "code": outcome.code}
                entries.append(orjson.dumps(failure))
            elif isinstance(outcome, Exception):
                raise outcome  # it concerns the whole request
            else:
                entries.append(answers.entry(upload.filename, outcome, top_k))
        return b'{"predictions":[%b],"model":%b}' % (b",".join(entries), answers.model)

    async def _classify_all(self, classifier: Classifier, pictures: list[bytes]) -> list[_Outcome]:
        """Return the probabilities of each picture, or why there are none."""
        gathering = _Gathering(len(pictures))
        deadline = self._deadline()
        try:
            for picture, reply in zip(pictures, gathering.replies, strict=True):
                if len(picture) > self._max_upload_bytes:
                    limit = f"{self._max_upload_bytes:,} bytes"
                    reply.set_exception(UploadTooLarge(f"The picture is larger than {limit}. Send a smaller one."))
                    continue
                try:
                    classifier.put(picture, reply, deadline=deadline)
                except ImageclassError as exc:
                    reply.set_exception(exc)
            return await gathering.outcomes
        finally:
            for reply in gathering.replies:
                classifier.withdraw(reply)

    def _answers_of(self, classifier: Classifier) -> Answers:
        answers = self._answers.get(classifier)
        if answers is None:
            # Another version is live: forget those that are not, but for one that still answers what it had accepted.
            answering = [*self._catalogue.models, classifier]
            self._answers = {each: self._answers.get(each) or Answers(each.manifest) for each in answering}
            answers = self._answers[classifier]
        return answers

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._request_timeout_s


class _Gathering:
    """The replies of one request's pictures, and the future of all their outcomes."""

    def __init__(self, count: int) -> None:
        self.replies = [_OneOfMany(self, index) for index in range(count)]
        self.outcomes: asyncio.Future[list[_Outcome]] = asyncio.get_running_loop().create_future()
        self._found: dict[int, _Outcome] = {}

    def has(self, index: int) -> bool:
        return index in self._found or self.outcomes.done()

    def add(self, index: int, outcome: _Outcome) -> None:
        self._found[index] = outcome
        if len(self._found) == len(self.replies) and not self.outcomes.done():
            self.outcomes.set_result([self._found[index] for index in range(len(self.replies))])


class _OneOfMany:
    """The Reply of one picture among those of its request."""

    __slots__ = ("_gathering", "_index")

    def __init__(self, gathering: _Gathering, index: int) -> None:
        self._gathering = gathering
        self._index = index

    def done(self) -> bool:
        return self._gathering.has(self._index)

    def set_result(self, row: NDArray[np.float32]) -> None:
        self._gathering.add(self._index, row)

    def set_exception(self, error: Exception) -> None:
        self._gathering.add(self._index, error)
