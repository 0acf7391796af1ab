"""Versions to push, and copies of a bucket to look at."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.contract.bundle import Bundle
from app.contract.location import BucketAddress
from app.contract.store import ModelStore
from app.object_storage.mirror import Mirror
from app.object_storage.store import BucketStore
from tests.versions import version_of

Push = Callable[..., Bundle]
OpenMirror = Callable[..., Mirror]


@pytest.fixture(scope="session")
def mnist(repository: Path) -> Path:
    """A bundle of 28 files."""
    return repository / "model_store" / "mnist" / "1"


@pytest.fixture
def push(bucket: BucketAddress, mnist: Path, tmp_path: Path) -> Push:
    """Return the function that publishes a version of mnist in the bucket."""

    def push_version(version: int, *, held_back: str | None = None, **changes: object) -> Bundle:
        made = version_of(mnist, version, tmp_path / f"pushed {len(list(tmp_path.iterdir()))}", **changes)
        BucketStore(bucket).push(made, held_back=held_back)
        return made

    return push_version


@pytest.fixture
def open_mirror(bucket: BucketAddress, tmp_path: Path) -> OpenMirror:
    """Return the function that opens the copy of this machine; each call is another process of it."""

    def open_copy(address: BucketAddress = bucket, *, max_bytes: int = 1 << 30, folder: str = "copy") -> Mirror:
        return Mirror(address, ModelStore(tmp_path / folder), max_bytes=max_bytes)

    return open_copy
