"""POST /predict and POST /predict/batch as FastAPI routes, for OpenAPI too, and their fast routes."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, get_args

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from app.api.http1.fast_routes import FastRoute
from app.api.http_request import answer_request
from app.api.inference import Question
from app.api.openapi.examples import TOP_K
from app.api.openapi.schemas import BatchAnswer, PredictionAnswer, error_responses
from app.api.questions import Asked, Questions
from app.contract.answer_options import AnswerOptions, Detail, SetMethod

MOST_FALSE_ALARMS = 0.5

TopK = Annotated[
    int | None, Query(ge=1, description="Return only the k most probable labels, best first.", examples=[TOP_K])
]
MinProbability = Annotated[
    float | None,
    Query(
        ge=0,
        le=1,
        description="Mark an answer below this probability as unsure, in the field decision. Default: the service's "
        "setting, else the bundle's minimum.",
        examples=[0.9],
    ),
]
FalseAlarms = Annotated[
    float | None,
    Query(
        gt=0,
        le=MOST_FALSE_ALARMS,
        description="Mark unfamiliar pictures, in the fields unfamiliar and decision, at this false-alarm rate: the "
        "share of familiar pictures marked by mistake. Default: the service's setting, else the bundle's "
        "rate.",
    ),
]
Details = Annotated[
    list[Detail] | None,
    Query(description="familiarity: how familiar the picture is; neighbours: the nearest training pictures."),
]
SetError = Annotated[
    float | None,
    Query(
        alias="set",
        gt=0,
        lt=1,
        description="Return a set of labels that misses the true label for this share of pictures, such as 0.01.",
    ),
]
SetMethodOfRequest = Annotated[
    SetMethod,
    Query(description="How the set is built: lac gives the smallest sets on average, aps never an empty one."),
]
_ModelName = Annotated[
    str | None, Query(description="The model to use; needed if several are served and none is the default.")
]
ModelVersion = Annotated[
    int | None, Query(ge=1, description="The model's version: the live one, which is the default, or one in preview.")
]

_PLAIN_QUERY = re.compile(
    rb"(?:model=([A-Za-z0-9._-]+)(?:&|$))?(?:version=([1-9][0-9]{0,17})(?:&|$))?(?:top_k=([1-9][0-9]{0,8})(?:&|$))?"
    rb"(?:min_probability=(0\.[0-9]{1,9})(?:&|$))?(?:false_alarms=(0\.[0-9]{1,9})(?:&|$))?"
    rb"(?:details=(familiarity|neighbours)(?:&|$))?(?:details=(familiarity|neighbours)(?:&|$))?"
    rb"(?:set=(0\.[0-9]{1,9})(?:&|$))?(?:set_method=(lac|aps)(?:&|$))?"
)
_DETAILS: Mapping[bytes, Detail] = {each.encode("ascii"): each for each in get_args(Detail)}
_SET_METHODS: Mapping[bytes, SetMethod] = {each.encode("ascii"): each for each in get_args(SetMethod)}
_PICTURE = {"type": "string", "format": "binary"}
PREDICT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "required": ["file"], "properties": {"file": _PICTURE}}
            },
            "image/*": {"schema": _PICTURE},
            "application/octet-stream": {"schema": _PICTURE},
        },
    }
}
_BATCH_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {"files": {"type": "array", "items": _PICTURE}},
                }
            }
        },
    }
}


def _options(
    top_k: TopK = None,
    min_probability: MinProbability = None,
    false_alarms: FalseAlarms = None,
    details: Details = None,
    set_error: SetError = None,
    set_method: SetMethodOfRequest = "lac",
) -> AnswerOptions:
    return AnswerOptions(top_k, min_probability, false_alarms, tuple(details or ()), set_error, set_method)


def _asked(model: _ModelName = None, version: ModelVersion = None) -> Asked:
    return Asked(model, None if version is None else str(version))


OptionsOfRequest = Annotated[AnswerOptions, Depends(_options)]
ModelOfRequest = Annotated[Asked, Depends(_asked)]


def predict_routes(questions: Questions) -> APIRouter:
    router = APIRouter(tags=["predict"])
    inference, limits = questions.inference, questions.limits

    @router.post(
        "/predict",
        summary="Classify one picture",
        response_model=PredictionAnswer,
        responses=error_responses(400, 404, 413, 415, 422, 500, 503, 504),
        openapi_extra=PREDICT_BODY,
    )
    async def predict(request: Request, model: ModelOfRequest, options: OptionsOfRequest) -> Response:
        """Send the picture as the multipart field `file`, or as the whole body with an `image/*` content type."""
        question = questions.one(model, options, request.headers.get("content-type", ""))
        return await answer_request(
            inference, request, question, max_bytes=limits.max_upload_bytes, may_be_compressed=False
        )

    @router.post(
        "/predict/batch",
        summary="Classify many pictures",
        response_model=BatchAnswer,
        responses=error_responses(400, 404, 413, 415, 500, 503, 504),
        openapi_extra=_BATCH_BODY,
    )
    async def predict_batch(request: Request, model: ModelOfRequest, options: OptionsOfRequest) -> Response:
        """Send the pictures as multipart fields `files`. Each gets an entry; one that cannot be used fails alone."""
        question = questions.many(model, options, request.headers.get("content-type", ""))
        return await answer_request(
            inference, request, question, max_bytes=limits.max_batch_bytes, may_be_compressed=False
        )

    return router


def predict_fast_routes(questions: Questions) -> list[FastRoute]:
    @lru_cache(maxsize=256)  # a question of one picture has no state, and most requests repeat an earlier one
    def one(query: bytes, content_type: bytes) -> Question | None:
        asked = _plain(query)
        return None if asked is None else questions.one(*asked, content_type.decode("latin-1"))

    def predict(_: Sequence[str], query: bytes, fields: Mapping[bytes, bytes]) -> Question | None:
        return one(query, fields.get(b"content-type", b""))

    def predict_batch(_: Sequence[str], query: bytes, fields: Mapping[bytes, bytes]) -> Question | None:
        asked = _plain(query)
        content_type = fields.get(b"content-type", b"").decode("latin-1")
        return None if asked is None else questions.many(*asked, content_type)

    return [FastRoute("/predict", predict), FastRoute("/predict/batch", predict_batch)]


def _plain(query: bytes) -> tuple[Asked, AnswerOptions] | None:
    """Return the model and the answer options of a query, or None if the application is to read it."""
    plain = _PLAIN_QUERY.fullmatch(query)
    if plain is None:
        return None
    name, version, top_k, minimum, false_alarms, first, second, set_error, method = plain.groups()
    options = AnswerOptions(
        None if top_k is None else int(top_k),
        _share(minimum),
        _share(false_alarms),
        tuple(_DETAILS[detail] for detail in (first, second) if detail is not None),
        _share(set_error),
        "lac" if method is None else _SET_METHODS[method],
    )
    if (options.false_alarms is not None and not 0 < options.false_alarms <= MOST_FALSE_ALARMS) or options.set == 0:
        return None
    return Asked(*(None if part is None else part.decode("ascii") for part in (name, version))), options


def _share(value: bytes | None) -> float | None:
    return None if value is None else float(value)
