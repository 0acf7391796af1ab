"""What requests get while the version that answers them is replaced."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.types import Message

from app.api.http_request import HttpSource
from app.api.questions import Asked, Questions
from app.contract.answer_options import AnswerOptions
from app.main import create_app, load_from, loader
from app.serving.catalogue import Catalogue
from app.settings import Settings

PNG = "image/png"


@pytest.fixture
def seven(data_folder: Path) -> bytes:
    return (data_folder / "7-00000.png").read_bytes()


@pytest.fixture
def settings(copy_of_store: Path) -> Settings:
    for version in range(2, 6):
        folder = copy_of_store / "digits" / str(version)
        shutil.copytree(copy_of_store / "digits" / "1", folder)
        manifest = json.loads((folder / "manifest.json").read_bytes())
        (folder / "manifest.json").write_text(json.dumps({**manifest, "version": version}))
    (copy_of_store / "digits" / "pinned").write_text("1")
    return Settings(model_store=copy_of_store, engine="openvino", reload_interval_s=0)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[tuple[Questions, Catalogue]]:
    app = create_app(settings, load_from(settings))
    async with app.router.lifespan_context(app):
        inference = app.state.inference
        yield Questions(inference), inference.catalogue


def version_of(answer: bytes) -> int:
    return int(json.loads(answer)["model"]["version"])


async def test_answers_name_the_version_that_gave_them_and_what_is_gone_is_forgotten(
    settings: Settings, seven: bytes
) -> None:
    async with serving(settings) as (questions, catalogue):
        for version in range(1, 6):
            if version > 1:
                assert await catalogue.replace(loader(settings).load("digits", version))
            classifier = catalogue.get()
            row = await classifier.classify(seven)
            answer = questions.one(Asked(), AnswerOptions(), PNG).write(classifier, [row])
            assert version_of(answer.body) == version
            assert len(questions.writers._made) <= 2


async def test_an_upload_that_takes_longer_than_a_swap_is_answered(settings: Settings, seven: bytes) -> None:
    async with serving(settings) as (questions, catalogue):
        begun, swapped = asyncio.Event(), asyncio.Event()
        parts = iter([seven[:50], seven[50:]])

        async def receive() -> Message:
            if begun.is_set():
                await swapped.wait()
            begun.set()
            part = next(parts, None)
            if part is None:
                await asyncio.Event().wait()  # the client stays
            return {"type": "http.request", "body": part, "more_body": part == seven[:50]}

        headers = [(b"content-length", b"%d" % len(seven))]
        scope = {"type": "http", "headers": headers, "state": {"trace": None}}
        source = HttpSource(Request(scope, receive), max_bytes=1_000_000)
        asked = asyncio.create_task(questions.inference.answer(questions.one(Asked(), AnswerOptions(), PNG), source))
        await begun.wait()
        old = catalogue.get()
        assert await catalogue.replace(loader(settings).load("digits", 2))
        await old.aclose()
        swapped.set()
        assert version_of((await asked).written.body) == 2
