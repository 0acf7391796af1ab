"""What all tests share: the pictures of tests/data, and a small bundle that training itself has made."""

import asyncio
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4
from weakref import WeakSet

import pytest
import structlog
from hypothesis import settings

from app.contract.bundle import MANIFEST, digests
from app.contract.location import BucketAddress
from app.main import load_from, loader
from app.object_storage.bucket import Bucket
from app.serving.admission import Admission, Lease
from app.serving.self_check import SelfCheck
from app.serving.versions import LoadedStore, Loader
from app.settings import Settings
from tests.s3_server import BUCKET, S3Server
from tests.shuffling import ShufflingLoop

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# The same examples on every machine, and none fails for being slow on a busy one.
settings.register_profile("imageclass", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("imageclass")

_SHUFFLED = {Path(__file__).parent / folder for folder in ("client", "serving")}
"""Asynchronous tests that are quick enough to run on a few shuffled loops each time."""
_FEW_SEEDS = range(1, 4)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--clients", default=f"{sys.prefix}-clients", help="The environment of public clients: make setup-clients."
    )
    parser.addoption("--uploads", type=int, default=1000, help="Uploads through each configuration of each proxy.")
    parser.addoption(
        "--restarts", type=int, default=2, help="Restarts under load, in the tests that count what is lost."
    )
    parser.addoption("--torn-pushes", type=int, default=15, help="Pushes to object storage that are killed.")
    parser.addoption(
        "--chaos-requests",
        type=int,
        default=0,
        help="Answers that each happening to replicas behind a proxy must get through; the time is limited then, too.",
    )
    parser.addoption("--kills", type=int, default=2, help="How often a bulk job is killed.")
    parser.addoption("--bulk-pictures", type=int, default=1500, help="Pictures of a bulk job.")
    parser.addoption("--examples", type=int, default=5000, help="Generated streams, in the tests that read requests.")
    parser.addoption(
        "--connection-examples", type=int, default=20, help="Runs of the state machine of what clients may do."
    )
    parser.addoption(
        "--shuffle-seed",
        type=int,
        metavar="N",
        help="Run asynchronous tests on an event loop that delays what comes from outside, by this seed.",
    )
    parser.addoption(
        "--shuffle-runs", type=int, default=1, metavar="K", help="With --shuffle-seed: the seeds N to N+K-1, each."
    )


def pytest_configure() -> None:
    # A shell ignores SIGINT for what it runs in the background, and so would every program that a test starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # structlog's own choice writes the values of every frame into a traceback, which takes seconds.
    *first, _ = structlog.get_config()["processors"]
    renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*first, renderer])


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """A command that a test runs in this process may have turned the log to an output that is closed after it."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    # Every process of a run must name a test alike, and what is made while tests are collected may differ: gzip writes
    # the time into its header. So bytes that are no text are named by their parameter and a number.
    if isinstance(val, bytes) and not (val.isascii() and val.decode().isprintable()):
        return argname
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Files that train or run containers come first: last, one process would be at them while the others are idle.
    items.sort(key=lambda item: not any(item.get_closest_marker(name) for name in ("slow", "docker")))


def pytest_report_header(config: pytest.Config) -> str | None:
    seeds = _seeds(config)
    return f"shuffling event loop: seeds {seeds[0]} to {seeds[-1]}" if seeds else None


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return the event loops that an asynchronous test runs on, one after another; its id names the seed."""
    seeds = _seeds(config)
    if seeds:
        return {f"seed{seed}": partial(ShufflingLoop, seed) for seed in seeds}
    plain = {"plain": asyncio.new_event_loop}
    if item.path.parent not in _SHUFFLED:
        return plain
    return {**plain, **{f"seed{seed}": partial(ShufflingLoop, seed) for seed in _FEW_SEEDS}}


@pytest.fixture(scope="session")
def shuffle_seeds(pytestconfig: pytest.Config) -> range:
    """The seeds for a test that opens shuffling loops itself: those that are asked for, or a few."""
    return _seeds(pytestconfig) or range(1, 21)


def _seeds(config: pytest.Config) -> range:
    first = config.getoption("--shuffle-seed")
    return range(0) if first is None else range(first, first + config.getoption("--shuffle-runs"))


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of this run's own, for commands in other processes too."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(home))
        yield home


@pytest.fixture
def leaks_on_purpose() -> None:
    """A test that asks for this holds places on purpose; see `nothing_is_leaked`."""


@pytest.fixture(scope="session", autouse=True)
def admissions() -> Iterator[WeakSet[Admission]]:
    """Every admission of this process that is still in use."""
    made: WeakSet[Admission] = WeakSet()
    init = Admission.__init__

    def remember(admission: Admission, *args: Any, **options: Any) -> None:
        init(admission, *args, **options)
        made.add(admission)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Admission, "__init__", remember)
        yield made


@pytest.fixture(autouse=True)
def nothing_is_leaked(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, admissions: WeakSet[Admission]
) -> Iterator[None]:
    """Let no test pass that needed the self-check: neither what it corrected nor what it would have to."""
    if "leaks_on_purpose" in request.fixturenames:
        yield
        return
    corrected: list[Lease] = []
    correct = SelfCheck.correct

    def tell(check: SelfCheck, leaked: set[Lease]) -> None:
        corrected.extend(leaked)
        correct(check, leaked)

    monkeypatch.setattr(SelfCheck, "correct", tell)
    yield
    patience = time.monotonic() + 5
    while leaked := [lease for admission in admissions for lease in list(admission.leases) if lease.owner.done()]:
        assert time.monotonic() < patience, f"{len(leaked)} ended requests hold something"
        time.sleep(0.01)  # a service in a thread may be about to take it back
    assert not corrected


@pytest.fixture(scope="session")
def examples(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--examples"))


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
    with shared_folder(tmp_path_factory, "trained") as folder:
        store = folder / "model_store"
        if not store.exists():
            _train_digits(repository, folder)
    return store


@contextmanager
def shared_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Iterator[Path]:
    """Yield a folder that the processes of one test run share. One of them at a time runs the block."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder = root / name
    folder.mkdir(exist_ok=True)
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _train_digits(repository: Path, folder: Path) -> None:
    store = folder / "being trained"
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
    store.rename(folder / "model_store")


Load = Callable[[Settings], LoadedStore]


@pytest.fixture(scope="session")
def load(trained_store: Path) -> Iterator[Load]:
    """Return the function that loads as `load_from` does, and `trained_store`, which no test changes, only once.

    Each way to load it counts apart: settings may name an engine, its threads, and its place. The engines of
    `trained_store` outlive the applications that use them.
    """
    kept: dict[tuple[Loader, str | None], LoadedStore] = {}
    with ExitStack() as stack:

        def load_once(settings: Settings) -> LoadedStore:
            if settings.model_store != trained_store:
                return load_from(settings)
            way = loader(settings), settings.model
            if way not in kept:
                kept[way] = load_from(settings)
                for model in kept[way].models:
                    engine = model.loaded.engine
                    stack.callback(engine.close)
                    engine.close = lambda: None  # type: ignore[method-assign]
            return kept[way]

        yield load_once


@pytest.fixture
def copy_of_store(trained_store: Path, tmp_path: Path) -> Path:
    """A copy of `trained_store` that the test may damage."""
    return Path(shutil.copytree(trained_store, tmp_path / "model_store"))


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server of this process; the environment has its address and keys. It takes some seconds to start."""
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_SHARED_CREDENTIALS_FILE", raising=False)
        for name, value in server.environment.items():
            patch.setenv(name, value)
        Bucket(BucketAddress(f"s3://{BUCKET}")).upload("made", b"")
        yield server
    server.stop()


@pytest.fixture
def bucket(s3_server: S3Server) -> BucketAddress:
    """An address with nothing below it."""
    return BucketAddress(f"s3://{BUCKET}/{uuid4().hex}")


@pytest.fixture(scope="session")
def sign() -> Callable[[Path], None]:
    """Return the function that writes the digests of a bundle's files, as they are now, into its manifest."""

    def sign_bundle(path: Path) -> None:
        manifest = json.loads((path / MANIFEST).read_bytes())
        manifest["files"] = digests(path)
        (path / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")

    return sign_bundle


FindProgram = Callable[[str], str]


@pytest.fixture(scope="session")
def program(repository: Path) -> FindProgram:
    """Return the function that finds a program of tests/packages.txt."""
    lines = (repository / "tests" / "packages.txt").read_text().splitlines()
    packages = {name: package for package, name in (line.split() for line in lines if not line.startswith("#"))}
    # Debian keeps servers where a user's PATH does not reach.
    folders = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"

    def find(name: str) -> str:
        found = shutil.which(name, path=folders)
        if found is None:
            lack(f"there is no {name}: run `make setup-programs` as root, or install Debian's {packages[name]}")
        return found

    return find


@pytest.fixture(scope="module")
def browser(program: FindProgram) -> Iterator["Browser"]:
    """A real browser; see `opened_browser`."""
    from tests.browser import opened_browser  # takes a third of a second, which few tests need

    with opened_browser(program("chromium")) as browser:
        yield browser


def lack(reason: str) -> NoReturn:
    """Skip the test that needs what is not there; CI has everything, so there it fails."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
