"""The client as a program uses it, with threads and on an event loop; a service that is made up answers."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from app.client import (
    AsyncServiceClient,
    Explanation,
    Failure,
    Familiarity,
    LabelSet,
    ModelReference,
    Neighbour,
    Prediction,
    Retry,
    ServiceClient,
)
from app.errors import ServiceError

URL = "http://service"
SEVEN = {"label": "7", "probability": 0.75, "probabilities": {"7": 0.75, "1": 0.25}}
MODEL = {"name": "mnist", "version": 3}
BUSY = httpx.Response(503, json={"error": "Busy.", "code": "overloaded"}, headers={"Retry-After": "2"})

Service = Callable[[httpx.Request], httpx.Response]


class Script:
    """Answers with one outcome after another, and keeps the requests."""

    def __init__(self, *outcomes: httpx.Response | Exception) -> None:
        self._outcomes = list(outcomes)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return httpx.Response(outcome.status_code, headers=outcome.headers, content=outcome.content)


class Client:
    """One of the two clients, asked the same way."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def ask(self, service: Service, method: str, *arguments: Any, retry: Retry | None = None, **options: Any) -> Any:
        transport = httpx.MockTransport(service)
        if self._kind == "threads":
            with ServiceClient(URL, retry=retry, transport=transport) as client:
                answer = getattr(client, method)(*arguments, **options)
                return list(answer) if method == "predict_many" else answer

        async def ask() -> Any:
            async with AsyncServiceClient(URL, retry=retry, transport=transport) as client:
                answer = getattr(client, method)(*arguments, **options)
                return [each async for each in answer] if method == "predict_many" else await answer

        return asyncio.run(ask())


@pytest.fixture(params=["threads", "event loop"])
def client(request: pytest.FixtureRequest) -> Client:
    return Client(request.param)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client would have waited."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("app.client.service.time.sleep", waited.append)
    monkeypatch.setattr("app.client.service.asyncio.sleep", sleep)
    return waited


def ok(**more: Any) -> httpx.Response:
    return httpx.Response(200, json={**SEVEN, "model": MODEL, **more})


def test_a_picture_gets_a_typed_answer(client: Client) -> None:
    service = Script(ok())
    answer = client.ask(service, "predict", b"picture", model="mnist", top_k=2)
    assert answer == Prediction("7", 0.75, {"7": 0.75, "1": 0.25}, ModelReference("mnist", 3))
    (request,) = service.requests
    assert (request.url.path, dict(request.url.params)) == ("/predict", {"model": "mnist", "top_k": "2"})
    assert request.content == b"picture"


def test_what_is_asked_of_an_answer_is_sent_and_read(client: Client) -> None:
    said = {
        "decision": "unfamiliar",
        "unfamiliar": True,
        "familiarity": {"overall": 0.01, "same_kind": 0.02, "clear_class": 0.3},
        "neighbours": [{"id": "7/a.png", "label": "7", "similarity": 0.9, "thumbnail": "/9j/"}],
        "set": {"labels": ["7", "1"], "error_rate": 0.1, "method": "aps", "held_out": 80, "calibration": "abc"},
    }
    service = Script(ok(**said))
    asked: dict[str, Any] = {
        "false_alarms": 0.05,
        "details": ["familiarity", "neighbours"],
        "set": 0.1,
        "set_method": "aps",
    }
    answer = client.ask(service, "predict", b"picture", min_probability=None, **asked)
    assert (answer.decision, answer.unfamiliar) == ("unfamiliar", True)
    assert answer.familiarity == Familiarity(0.01, 0.02, 0.3)
    assert answer.neighbours == (Neighbour("7/a.png", "7", 0.9, "/9j/"),)
    assert answer.set == LabelSet(("7", "1"), 0.1, "aps", 80, "abc")
    assert service.requests[0].url.params.multi_items() == [
        ("false_alarms", "0.05"),
        ("details", "familiarity"),
        ("details", "neighbours"),
        ("set", "0.1"),
        ("set_method", "aps"),
    ]
    with pytest.raises(TypeError, match="no option topk"):
        client.ask(Script(), "predict", b"picture", topk=1)


def test_models_get_typed_answers(client: Client) -> None:
    body = {**MODEL, "labels": ["1", "7"], "metrics": {"test.accuracy": 0.99}, "card": "…"}
    assert client.ask(Script(httpx.Response(200, json=body)), "model", "mnist").labels == ("1", "7")
    (served,) = client.ask(Script(httpx.Response(200, json={"models": [body]})), "models")
    assert (served.name, served.version, served.metrics) == ("mnist", 3, {"test.accuracy": 0.99})


def test_of_a_batch_a_bad_picture_fails_alone(client: Client) -> None:
    entries = [{"file": "picture", **SEVEN}, {"file": "picture", "error": "No picture.", "code": "unsupported_format"}]
    service = Script(httpx.Response(200, json={"predictions": entries, "model": MODEL}))
    good, bad = client.ask(service, "predict_batch", [b"one", b"two"])
    assert good.model == ModelReference("mnist", 3)
    assert bad == Failure("No picture.", "unsupported_format")


def test_an_overloaded_service_is_asked_again_after_the_time_that_it_names(client: Client, waits: list[float]) -> None:
    service = Script(BUSY, BUSY, ok())
    assert client.ask(service, "predict", b"picture").label == "7"
    assert len(service.requests) == 3
    assert all(2 <= wait <= 2.5 for wait in waits)


def test_a_retry_after_that_is_a_date_is_understood() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    wait = Retry().wait_s(1, httpx.Response(429, headers={"Retry-After": date}))
    assert wait is not None
    assert 28 <= wait <= 38


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ReadError("reset"), httpx.ConnectTimeout("…")])
def test_a_connection_that_fails_is_tried_again_later_and_later(
    client: Client, waits: list[float], error: Exception
) -> None:
    service = Script(error, error, error, ok())
    assert client.ask(service, "predict", b"picture", retry=Retry(base_s=1.0)).label == "7"
    assert [wait <= longest for wait, longest in zip(waits, (1, 2, 4), strict=True)] == [True] * 3


@pytest.mark.parametrize(
    "outcome", [httpx.Response(422, json={"error": "Broken.", "code": "undecodable_image"}), httpx.ReadTimeout("…")]
)
def test_what_would_fare_no_better_is_not_tried_again(
    client: Client, waits: list[float], outcome: httpx.Response | Exception
) -> None:
    service = Script(outcome)
    with pytest.raises(ServiceError):
        client.ask(service, "predict", b"picture")
    assert (len(service.requests), waits) == (1, [])


def test_no_more_is_tried_than_was_asked_for(client: Client, waits: list[float]) -> None:
    service = Script(BUSY, BUSY, BUSY)
    with pytest.raises(ServiceError, match="Busy") as caught:
        client.ask(service, "predict", b"picture", retry=Retry(retries=2))
    assert (caught.value.status, caught.value.answered_code) == (503, "overloaded")
    assert len(waits) == 2


def test_a_service_that_asks_for_a_long_wait_is_not_waited_for(client: Client, waits: list[float]) -> None:
    with pytest.raises(ServiceError):
        client.ask(Script(httpx.Response(503, json={}, headers={"Retry-After": "3600"})), "predict", b"picture")
    assert waits == []


@pytest.mark.parametrize(
    "answer", [httpx.Response(200, text="<html>"), httpx.Response(200, json=[1]), httpx.Response(502, text="gateway")]
)
def test_what_is_no_such_service_is_said_in_a_sentence(client: Client, answer: httpx.Response) -> None:
    with pytest.raises(ServiceError, match="Is it an imageclass service"):
        client.ask(Script(answer), "predict", b"picture")


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://service", "http://", "http://service:port", "no address"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ServiceError, match="not an address of a service"):
        ServiceClient(url)


def test_an_api_key_is_sent() -> None:
    service = Script(ok())
    with ServiceClient(URL, api_key="secret", transport=httpx.MockTransport(service)) as client:
        client.predict(b"picture")
    assert service.requests[0].headers["x-api-key"] == "secret"


def batches_of(most: int) -> Service:
    """A service that takes so many pictures at once, and answers each with its own bytes as the label."""

    def service(request: httpx.Request) -> httpx.Response:
        parts = [part.partition(b"\r\n\r\n")[2] for part in request.content.split(b"--")]
        pictures = [part.removesuffix(b"\r\n") for part in parts if part]
        if len(pictures) > most:
            return httpx.Response(400, json={"error": f"At most {most}.", "code": "malformed_request"})
        if any(len(picture) > 100 for picture in pictures):
            return httpx.Response(413, json={"error": "Too large.", "code": "upload_too_large"})
        entries = [{**SEVEN, "file": "picture", "label": picture.decode()} for picture in pictures]
        return httpx.Response(200, json={"predictions": entries, "model": MODEL})

    return service


def test_many_pictures_are_answered_in_their_order_in_as_many_requests_as_it_takes(client: Client) -> None:
    pictures = [f"picture {number}".encode() for number in range(1000)]
    outcomes = client.ask(batches_of(10), "predict_many", iter(pictures), batch_size=25)
    assert [outcome.label.encode() for outcome in outcomes] == pictures


def test_a_picture_that_is_too_large_for_any_request_fails_alone(client: Client) -> None:
    outcomes = client.ask(batches_of(10), "predict_many", [b"one", b"2" * 101, b"three"])
    assert [type(outcome) for outcome in outcomes] == [Prediction, Failure, Prediction]


def test_a_service_that_fails_amid_many_ends_them(client: Client) -> None:
    with pytest.raises(ServiceError, match="no model 'cats'"):
        client.ask(
            lambda _: httpx.Response(404, json={"error": "There is no model 'cats'.", "code": "model_not_found"}),
            "predict_many",
            [b"one"] * 500,
        )


def test_an_explanation_has_the_map_of_the_label_that_is_asked_for(client: Client) -> None:
    box = {"left": 0.0, "top": 0.0, "width": 1.0, "height": 1.0}
    found = {"label": "1", "probability": 0.25, "method": "rise", "masks": 500, "box": box, "map": [[0.1, 0.4]]}
    service = Script(ok(explanation=found))
    answer = client.ask(service, "explain", b"picture", "1", model="mnist")
    assert service.requests[0].url == f"{URL}/explain?model=mnist&label=1"
    assert service.requests[0].content == b"picture"
    prediction = Prediction("7", 0.75, {"7": 0.75, "1": 0.25}, ModelReference("mnist", 3))
    assert answer == Explanation("1", 0.25, "rise", 500, box, [[0.1, 0.4]], prediction)
