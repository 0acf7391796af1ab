from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from app.main import create_app
from app.serving.versions import LoadedStore
from app.settings import Settings
from tests.conftest import Load

OpenClient = Callable[..., Awaitable[httpx.AsyncClient]]


@asynccontextmanager
async def running(settings: Settings, loaded: LoadedStore) -> AsyncIterator[httpx.AsyncClient]:
    """The application, started and stopped as uvicorn does it, without a socket."""
    app = create_app(settings, loaded)
    async with app.router.lifespan_context(app), client_of(app) as client:
        yield client


def client_of(app: ASGIApp) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://service")


@pytest.fixture
async def open_client(trained_store: Path, load: Load) -> AsyncIterator[OpenClient]:
    """Start the application with settings of a test's own."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> httpx.AsyncClient:
            given = Settings(**{"model_store": trained_store, "engine": "openvino", **settings})
            return await stack.enter_async_context(running(given, load(given)))

        yield start


@pytest.fixture
async def client(trained_store: Path, load: Load) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings(model_store=trained_store, engine="openvino")
    async with running(settings, load(settings)) as client:
        yield client
