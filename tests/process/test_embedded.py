"""One worker in a process that another system starts, watches and ends."""

import asyncio
from pathlib import Path

import httpx
import pytest

from app.process.embedded import Embedded
from app.serving.self_check import SelfCheck
from app.settings import Settings


@pytest.fixture
def embedded(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Embedded:
    # They change the process that they run in for good, which is that of all tests here.
    monkeypatch.setattr("app.main.keep_standard_error_for_the_log", lambda *_: None)
    monkeypatch.setattr("app.main.gc.freeze", lambda: None)
    return Embedded(Settings(model_store=repository / "model_store", engine="openvino"))


async def test_it_answers_and_is_ready_after_a_heartbeat(
    embedded: Embedded, mnist_pictures: list[tuple[Path, str]]
) -> None:
    embedded.check()
    path, label = mnist_pictures[0]
    application = embedded.application
    transport = httpx.ASGITransport(application)
    async with (
        application.router.lifespan_context(application),
        httpx.AsyncClient(transport=transport, base_url="http://replica") as client,
    ):
        assert (await client.get("/health")).json()["workers"]["ready"] == 1
        answer = await client.post("/predict", content=path.read_bytes(), headers={"Content-Type": "image/png"})
    assert answer.json()["label"] == label


async def test_its_load_is_what_it_holds_over_what_keeps_it_busy(embedded: Embedded) -> None:
    admission = embedded.application.state.inference.admission
    assert embedded.load == 0
    admission.enough = 4
    owner: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    lease = admission.enter(owner, 6)
    assert embedded.load == 1.5
    lease.end()


def test_the_check_fails_if_the_process_is_stuck(embedded: Embedded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SelfCheck, "look", lambda _check: "a place has been held for 99 s")
    with pytest.raises(RuntimeError, match="held for 99 s"):
        embedded.check()
