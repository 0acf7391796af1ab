"""POST /explain: a prediction, and a heat map that explains it."""

import json
from collections.abc import Sequence
from io import BytesIO
from typing import Annotated, Any, Literal

import numpy as np
import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.api.http_request import answer_request
from app.api.inference import Written
from app.api.openapi.schemas import ExplanationAnswer, error_responses
from app.api.questions import Asked, OnePicture, Questions
from app.api.routes.predict import PREDICT_BODY, ModelOfRequest
from app.contract.answer_options import AnswerOptions
from app.errors import ExplanationsOff
from app.serving.classifier import Classifier
from app.serving.explanation import Explanation, ExplanationOptions

EXPLANATION_HEADER = "X-Explanation"

Format = Literal["json", "png", "npy"]
_FORMATS: dict[str, Any] = {
    "image/png": {"schema": {"type": "string", "format": "binary"}},
    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
}


def explain_routes(questions: Questions, *, allowed: bool) -> APIRouter:
    """Without `allowed`, every request is rejected with 403."""
    router = APIRouter(tags=["predict"])

    @router.post(
        "/explain",
        summary="Classify one picture and explain the answer",
        response_model=ExplanationAnswer,
        responses={200: {"content": _FORMATS}, **error_responses(400, 403, 404, 413, 415, 422, 500, 503, 504)},
        openapi_extra=PREDICT_BODY,
    )
    async def explain(
        request: Request,
        model: ModelOfRequest,
        label: Annotated[
            str | None, Query(description="The label to explain; by default the most probable one.")
        ] = None,
        answer_format: Annotated[
            Format,
            Query(
                alias="format",
                description="json; png, the picture with the map drawn over it; npy, only the map, as a NumPy file.",
            ),
        ] = "json",
    ) -> Response:
        """Send the picture as for /predict. The map says how much each place speaks for the label.

        If the network's last layer reads the means of feature maps, the map is exact and costs little more than a
        prediction (cam). Otherwise, the picture is classified many times with parts of it hidden, while no other
        picture is queued (rise).
        """
        question = ExplainedPicture(questions, model, label, answer_format, request.headers.get("content-type", ""))
        if not allowed:
            raise ExplanationsOff(
                "Explanations are turned off. Set IMAGECLASS_MAX_EXPLANATIONS above 0 to turn them on."
            )
        return await answer_request(
            questions.inference,
            request,
            question,
            max_bytes=questions.limits.max_upload_bytes,
            may_be_compressed=False,
        )

    return router


class ExplainedPicture(OnePicture):
    """One picture as for /predict, with the label to explain and the form of the map."""

    def __init__(
        self, questions: Questions, model: Asked, label: str | None, answer_format: Format, content_type: str
    ) -> None:
        super().__init__(questions, model, AnswerOptions(), content_type)
        self.explanation = ExplanationOptions(label, drawn=answer_format == "png")
        self._format = answer_format

    def output_of(self, model: Classifier) -> str | None:
        return model.explained_by

    def write(self, model: Classifier, outcomes: Sequence[Any]) -> Written:
        found: Explanation = outcomes[0]
        about = {
            "label": model.manifest.labels[found.label_index],
            "probability": found.probabilities[found.label_index],
            "method": found.method,
            "masks": found.masks,
            "box": found.box._asdict(),
        }
        if self._format == "json":
            explanation = _json({**about, "map": found.grid})
            answer = self._writer_of(model).answer(found.probabilities, self._options)
            return Written(b'%b,"explanation":%b}' % (answer[:-1], explanation))
        headers = [(EXPLANATION_HEADER, json.dumps(orjson.loads(_json(about))))]  # of ASCII alone
        if found.png is not None:
            return Written(found.png, "image/png", headers)
        saved = BytesIO()
        np.save(saved, found.grid)
        return Written(saved.getvalue(), "application/octet-stream", headers)


def _json(values: dict[str, Any]) -> bytes:
    return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)  # a float32 with the fewest digits, as in answers
