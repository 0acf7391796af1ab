"""What the log tells of requests that were refused, on a quiet day and in a flood."""

import asyncio
from collections import Counter
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from app.api.guard.request_log import IN_FULL_PER_SECOND, RejectionLog
from tests.api.conftest import OpenClient

Line = MutableMapping[str, Any]


def note(log: RejectionLog, request_id: str, *, status: int = 503, code: str = "overloaded") -> None:
    log.note(request_id=request_id, method="POST", path="/predict", status=status, code=code)


def ids_of(lines: list[Line]) -> Counter[str]:
    """The ids that the lines name, and how often."""
    found: Counter[str] = Counter()
    for line in lines:
        found.update([line["request_id"]] if "request_id" in line else line.get("request_ids", []))
    return found


async def test_a_refusal_is_one_line_with_what_finds_it() -> None:
    with capture_logs() as lines:
        note(RejectionLog(), "order-42", status=413, code="image_too_large")
    assert lines == [
        {
            "event": "request refused",
            "log_level": "info",
            "request_id": "order-42",
            "method": "POST",
            "path": "/predict",
            "status": 413,
            "code": "image_too_large",
        }
    ]


async def test_what_the_operator_should_know_of_is_a_warning() -> None:
    with capture_logs() as lines:
        note(RejectionLog(), "a", status=504, code="deadline_exceeded")
    assert lines[0]["log_level"] == "warning"


async def test_in_a_flood_every_id_is_told_once_in_few_lines() -> None:
    log = RejectionLog()
    sent = [f"0123456789abcdef-{number:x}" for number in range(1000)]
    with capture_logs() as lines:
        for request_id in sent:
            note(log, request_id)
        log.flush()
    assert ids_of(lines) == Counter(sent)
    assert len(lines) < IN_FULL_PER_SECOND + 10
    assert sum(line.get("count", 1) for line in lines) == 1000


async def test_another_code_is_told_in_full_amid_a_flood() -> None:
    log = RejectionLog()
    with capture_logs() as lines:
        for number in range(100):
            note(log, str(number))
        note(log, "mine", status=401, code="unauthorized")
    assert lines[-1]["request_id"] == "mine"


async def test_a_flood_of_long_ids_is_bounded_and_counted() -> None:
    log = RejectionLog()
    with capture_logs() as lines:
        for number in range(20_000):
            note(log, f"{number:x>128}")
        log.flush()
    assert sum(line.get("count", 1) for line in lines) == 20_000
    written = [len("".join(line.get("request_ids", []))) for line in lines]
    assert sum(written) < 100_000
    assert max(written) < 8 * 1024


async def test_what_waits_is_written_without_another_request() -> None:
    flushed = asyncio.Event()

    class Watched(RejectionLog):
        def flush(self) -> None:
            super().flush()
            flushed.set()

    log = Watched()
    with capture_logs() as lines:
        for number in range(IN_FULL_PER_SECOND + 1):
            note(log, str(number))
        assert len(lines) == IN_FULL_PER_SECOND
        await asyncio.wait_for(flushed.wait(), 60)
    assert (lines[-1]["event"], lines[-1]["request_ids"]) == ("requests refused", [str(IN_FULL_PER_SECOND)])


async def test_there_is_a_line_for_each_request_only_where_it_is_asked_for(open_client: OpenClient) -> None:
    with capture_logs() as lines:
        await (await open_client()).get("/models", headers={"x-request-id": "quiet"})
        await (await open_client(access_log=True)).get("/models/cats?a=secret", headers={"x-request-id": "told"})
    (line,) = [line for line in lines if line["event"] == "request"]
    assert line.pop("seconds") > 0
    assert line == {
        "event": "request",
        "log_level": "info",
        "request_id": "told",
        "method": "GET",
        "path": "/models/cats",
        "status": 404,
        "code": "model_not_found",
        "model": "",
        "version": "",
    }


@pytest.mark.parametrize("path", ["/nothing", "/models/cats", "/predict"])
async def test_every_refusal_is_in_the_log_under_the_id_of_its_answer(open_client: OpenClient, path: str) -> None:
    client = await open_client()
    with capture_logs() as lines:
        answer = (await client.get(path)).json()
    (line,) = [line for line in lines if line.get("request_id") == answer["request_id"]]
    assert (line["code"], line["path"]) == (answer["code"], path)


async def test_a_picture_that_the_model_fails_on_in_a_batch_is_in_the_log_too(
    client: httpx.AsyncClient, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_self: object, _batch: object) -> None:
        raise RuntimeError("no memory")

    for network in ("_OfOneSize", "_OfAnySize"):
        monkeypatch.setattr(f"app.engines.openvino.{network}.predict", fail)
    files = [
        ("files", (data_folder / f"{digit}-{number}.png").read_bytes())
        for digit, number in ((0, "00003"), (7, "00000"))
    ]
    with capture_logs() as lines:
        answer = await client.post("/predict/batch", files=files)
    assert [entry["code"] for entry in answer.json()["predictions"]] == ["inference_failed"] * 2
    told = [line for line in lines if line.get("request_id") == answer.headers["x-request-id"]]
    assert [(line["event"], line["code"], line["log_level"]) for line in told] == [
        ("request failed", "inference_failed", "error")
    ] * 2


async def test_nothing_of_a_key_or_a_picture_is_logged(
    open_client: OpenClient, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = (data_folder / "7-00000.png").read_bytes()
    keys = {"authorization": "Bearer sesame-open"}
    client = await open_client(api_keys=SecretStr("sesame-open"), access_log=True)
    with capture_logs() as lines:
        answers = [
            await client.post("/predict?model=secret-query", content=picture, headers=keys),
            await client.post("/predict", files={"file": ("secret-name.png", picture)}, headers=keys),
            await client.post("/predict", files={"file": ("secret-name.png", picture[:99])}, headers=keys),
            await client.post(
                "/predict", content=b"bytes-of-no-picture", headers={**keys, "content-type": "image/png"}
            ),
            await client.post("/predict", content=picture, headers={"x-api-key": "sesame-wrong"}),
        ]
        monkeypatch.setattr("app.api.http_request.read_body", lambda *_, **__: 1 / 0)
        answers.append(await client.post("/predict", content=picture, headers=keys))
    assert [answer.status_code for answer in answers] == [404, 200, 422, 415, 401, 500]
    logged = repr([{**line, "exc_info": None} for line in lines])
    assert len(lines) >= 11
    for secret in ("sesame", "secret-", "bytes-of", "IHDR", repr(picture[:8])[2:-1]):
        assert secret not in logged
