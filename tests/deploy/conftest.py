import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from app.main import load_from
from app.settings import Settings
from tests.api.conftest import running


@pytest.fixture
async def client(repository: Path, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The service on a store as the pods see it: of KServe, what lies below its storageUri."""
    models = tmp_path / "mnt" / "models"
    shutil.copytree(repository / "model_store" / "mnist", models / "mnist")
    settings = Settings(model_store=models, engine="openvino")
    async with running(settings, load_from(settings)) as client:
        yield client
