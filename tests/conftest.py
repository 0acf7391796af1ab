"""What all tests share: the pictures of tests/data, and a small bundle that training itself has made."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from app.contract.bundle import MANIFEST, digests

# The same examples on every machine, and none fails for being slow on a busy one.
settings.register_profile("imageclass", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("imageclass")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--clients", default=f"{sys.prefix}-clients", help="The environment of public clients: make setup-clients."
    )
    parser.addoption(
        "--restarts", type=int, default=2, help="Restarts under load, in the tests that count what is lost."
    )
    parser.addoption(
        "--connection-examples", type=int, default=20, help="Runs of the state machine of what clients may do."
    )


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of this run's own, for commands in other processes too."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(home))
        yield home


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def data_folder(repository: Path) -> Path:
    return repository / "tests" / "data"


@pytest.fixture(scope="session")
def mnist_pictures(data_folder: Path) -> list[tuple[Path, str]]:
    """Pictures of MNIST's test set with their labels."""
    return [(file, file.name.split("-")[0]) for file in sorted(data_folder.glob("[0-9]-*.png"))]


@pytest.fixture(scope="session")
def trained_store(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with the bundle digits/1. It is trained in another process: TensorFlow does not enter this one."""
    store = tmp_path_factory.mktemp("trained") / "model_store"
    options = ["--data", "digits", "--name", "digits", "--preset", "seed", "--epochs", "2", "--model-store", str(store)]
    done = subprocess.run(
        [sys.executable, "-m", "training", "fit", *options],
        cwd=repository,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"training failed with exit code {done.returncode}\n{done.stdout}\n{done.stderr}", pytrace=False)
    return store


@pytest.fixture
def copy_of_store(trained_store: Path, tmp_path: Path) -> Path:
    """A copy of `trained_store` that the test may damage."""
    return Path(shutil.copytree(trained_store, tmp_path / "model_store"))


@pytest.fixture(scope="session")
def sign() -> Callable[[Path], None]:
    """Return the function that writes the digests of a bundle's files, as they are now, into its manifest."""

    def sign_bundle(path: Path) -> None:
        manifest = json.loads((path / MANIFEST).read_bytes())
        manifest["files"] = digests(path)
        (path / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")

    return sign_bundle
