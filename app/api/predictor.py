"""From the body of a request to the JSON of its answer: read, delegate, shape.

Both ways into `POST /predict` end here: FastAPI's route and the fast path. It knows bodies and JSON, no status codes.
"""

import asyncio
from typing import Any

import numpy as np
import orjson
from starlette.types import Receive

from app.api.uploads import read_picture, read_pictures
from app.errors import ImageError, InferenceFailed, UploadTooLarge
from app.serving.catalogue import Catalogue
from app.serving.classifier import Classification, Classifier

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
        self._request_timeout_s = request_timeout_s
        self._max_upload_bytes = max_upload_bytes
        self._max_batch_bytes = max_batch_bytes
        self._max_batch_pictures = max_batch_pictures

    async def predict(
        self, receive: Receive, *, content_type: str, content_length: str, model: str | None, top_k: int | None
    ) -> bytes:
        """Return `PredictionAnswer` as JSON. Raises an ImageclassError, or ClientDisconnect."""
        classifier = self._catalogue.get(model)
        with self._catalogue.admission.admit():
            picture = await read_picture(
                receive,
                content_type=content_type,
                content_length=content_length,
                field="file",
                max_bytes=self._max_upload_bytes,
            )
            classification = await classifier.classify(picture, deadline=self._deadline())
        return _json(answer(classification, top_k))

    async def predict_batch(
        self, receive: Receive, *, content_type: str, content_length: str, model: str | None, top_k: int | None
    ) -> bytes:
        """Return `BatchAnswer` as JSON. Raises an ImageclassError, or ClientDisconnect."""
        classifier = self._catalogue.get(model)
        uploads = await read_pictures(
            receive,
            content_type=content_type,
            content_length=content_length,
            field="files",
            max_bytes=self._max_batch_bytes,
            max_pictures=self._max_batch_pictures,
        )
        with self._catalogue.admission.admit(len(uploads)):
            deadline = self._deadline()
            outcomes = await asyncio.gather(
                *(self._classify_one(classifier, upload.data, deadline) for upload in uploads), return_exceptions=True
            )
        predictions = [
            {"file": upload.filename, **_entry(outcome, top_k)}
            for upload, outcome in zip(uploads, outcomes, strict=True)
        ]
        model_reference = {"name": classifier.manifest.name, "version": classifier.manifest.version}
        return _json({"predictions": predictions, "model": model_reference})

    async def _classify_one(self, classifier: Classifier, picture: bytes, deadline: float) -> Classification:
        if len(picture) > self._max_upload_bytes:
            raise UploadTooLarge(f"The picture is larger than {self._max_upload_bytes:,} bytes. Send a smaller one.")
        return await classifier.classify(picture, deadline=deadline)

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._request_timeout_s


def answer(classification: Classification, top_k: int | None) -> dict[str, Any]:
    """Return `PredictionAnswer` as a dictionary."""
    model = {"name": classification.model, "version": classification.version}
    return {**_prediction(classification, top_k), "model": model}


def _prediction(classification: Classification, top_k: int | None) -> dict[str, Any]:
    labels, probabilities = classification.labels, classification.probabilities
    values = list(probabilities)  # of NumPy's float32, which orjson writes in the fewest digits that tell them apart
    best = int(probabilities.argmax())
    if top_k is None:
        shown = dict(zip(labels, values, strict=True))
    else:
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        shown = {labels[index]: values[index] for index in order}
    return {"label": labels[best], "probability": values[best], "probabilities": shown}


def _entry(outcome: Classification | BaseException, top_k: int | None) -> dict[str, Any]:
    """Return a picture's entry of a batch. Raises what concerns the whole request."""
    if isinstance(outcome, Classification):
        return _prediction(outcome, top_k)
    if isinstance(outcome, _OF_ONE_PICTURE):
        return {"error": str(outcome), "code": outcome.code}
    raise outcome


def _json(body: dict[str, Any]) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
