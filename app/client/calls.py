"""The calls of the HTTP interface and the parsing of their answers, shared by both clients."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypedDict, TypeVar, Unpack
from urllib.parse import quote

import httpx
import orjson

from app.client import answers
from app.client.answers import Explanation, Failure, Outcome, Prediction, ServedModel
from app.errors import ServiceError

Answer = TypeVar("Answer")
Query = dict[str, str | int | float | Sequence[str]]


class Options(TypedDict, total=False):
    """Options of a prediction, named like the HTTP query. The service decides about options that are None or left out.

    `version` is the live one, or one in preview. With `top_k`, only the k most probable labels come, best first. With
    `min_probability` or `false_alarms`, a decision says whether the answer is unsure, or the picture unfamiliar.
    `details` adds familiarity and neighbours, `set` a set of labels that misses the truth for that share of pictures.
    """

    model: str | None
    version: int | None
    top_k: int | None
    min_probability: float | None
    false_alarms: float | None
    details: Sequence[Literal["familiarity", "neighbours"]]
    set: float | None
    set_method: Literal["lac", "aps"]


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """A request, and the function that parses the JSON of its answer."""

    method: str
    path: str
    read: Callable[[Any], Answer]
    query: Query | None = None
    content: bytes | None = None
    content_type: str | None = None

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Return the request, which may be sent several times."""
        headers = None if self.content_type is None else {"Content-Type": self.content_type}
        return http.build_request(self.method, self.path, params=self.query, content=self.content, headers=headers)

    def answer(self, response: httpx.Response) -> Answer:
        """Return the answer. Raises ServiceError with the service's own message, or if it is not such a service."""
        url, status = response.url, response.status_code
        try:
            body = orjson.loads(response.content)
        except ValueError:
            raise ServiceError(
                f"{url} answered {status} without JSON. Is it an imageclass service?", status=status
            ) from None
        if not response.is_success:
            said = body if isinstance(body, dict) else {}
            raise ServiceError(
                str(said.get("error", f"{url} answered {status}.")), status=status, answered_code=said.get("code")
            )
        try:
            return self.read(body)
        except (LookupError, TypeError):
            raise ServiceError(
                f"{url} answered {status} with JSON of another kind. Is it an imageclass service?", status=status
            ) from None


def query_of(**options: Unpack[Options]) -> Query:
    """Return the query of a prediction. Raises TypeError for an unknown option."""
    unknown = options.keys() - Options.__annotations__.keys()
    if unknown:
        raise TypeError(f"a prediction has no option {', '.join(sorted(unknown))}")
    return {name: value for name, value in options.items() if isinstance(value, str | int | float | Sequence)}


def explain(picture: bytes, model: str | None, version: int | None, label: str | None) -> Call[Explanation]:
    asked = (("model", model), ("version", version), ("label", label))
    query: Query = {name: value for name, value in asked if value is not None}
    return Call("POST", "/explain", answers.explanation, query, picture, "application/octet-stream")


def predict(picture: bytes, query: Query) -> Call[Prediction]:
    return Call("POST", "/predict", answers.prediction, query, picture, "application/octet-stream")


def predict_batch(pictures: Sequence[bytes], query: Query) -> Call[list[Outcome]]:
    boundary = secrets.token_hex(16)  # random, so that no picture contains it
    form = f"multipart/form-data; boundary={boundary}"
    return Call("POST", "/predict/batch", answers.outcomes, query, _form(pictures, boundary), form)


def models() -> Call[list[ServedModel]]:
    return Call("GET", "/models", answers.served_models)


def model(name: str) -> Call[ServedModel]:
    return Call("GET", f"/models/{quote(name, safe='')}", answers.served_model)


def no_answer(url: httpx.URL, error: Exception) -> ServiceError:
    """Return the error for a call that got no answer."""
    return ServiceError(f"{url} does not answer: {str(error) or type(error).__name__}. Is the service running there?")


def smaller(pictures: Sequence[bytes], rejection: ServiceError) -> tuple[Sequence[bytes], Sequence[bytes]] | Failure:
    """Return the halves of a batch that was rejected for its size, or the failure of a picture that is too large alone.

    Raises the rejection itself if it has another reason.
    """
    too_large = rejection.status == httpx.codes.REQUEST_ENTITY_TOO_LARGE
    if len(pictures) > 1 and (too_large or rejection.answered_code == "malformed_request"):  # too many, or too large
        return pictures[: len(pictures) // 2], pictures[len(pictures) // 2 :]
    if too_large:
        return Failure(str(rejection), rejection.answered_code or "upload_too_large")
    raise rejection


def _form(pictures: Sequence[bytes], boundary: str) -> bytes:
    """Return a form with the pictures as its fields `files`.

    Building uniform parts takes a tenth of HTTPX's time, which for small pictures is more than reading them.
    """
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="picture"\r\n\r\n'.encode()
    parts = [part for picture in pictures for part in (head, picture, b"\r\n")]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()])
