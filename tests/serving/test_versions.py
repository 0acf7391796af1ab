"""Loading versions from a real store: what a version takes over from the one before it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from app.contract.store import ModelStore
from app.engines.loading import LoadedModel
from app.engines.openvino import OpenVinoEngine
from app.errors import BundleNotFound, BundleTampered
from app.serving import versions
from app.serving.tuning import Tuning
from app.serving.versions import Loader, load_store


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each model that was loaded had to be measured."""
    found: list[bool] = []

    def tune(_loaded: LoadedModel, *_given: object, known: Tuning | None, **_more: object) -> Tuning:
        found.append(known is None)
        return known or Tuning({1: 0.001}, on_event_loop=True, inline_decode_pixels=100)

    monkeypatch.setattr(versions, "tune", tune)
    return found


@pytest.fixture
def a_loader(copy_of_store: Path) -> Loader:
    return Loader(ModelStore(copy_of_store), "openvino", 1)


def add(store: ModelStore, version: int, **changes: object) -> None:
    folder = store.path("digits", version)
    shutil.copytree(store.path("digits", 1), folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "version": version, **changes}))


def test_a_network_of_the_same_kind_is_run_as_the_one_before_it(a_loader: Loader, measured: list[bool]) -> None:
    add(a_loader.store, 2)
    first = a_loader.load("digits", 1)
    second = a_loader.load("digits", 2, like=first, pause=lambda: None)
    assert second.tuning is first.tuning
    assert measured == [True, False]


def test_a_larger_network_is_measured_anew(a_loader: Loader, measured: list[bool]) -> None:
    metrics = json.loads((a_loader.store.path("digits", 1) / "manifest.json").read_bytes())["metrics"]
    add(a_loader.store, 2, metrics={**metrics, "parameters": metrics["parameters"] + 1})
    a_loader.load("digits", 2, like=a_loader.load("digits", 1), pause=lambda: None)
    assert measured == [True, True]


def test_a_bundle_is_still_what_it_was_until_its_manifest_says_otherwise(
    a_loader: Loader, sign: Callable[[Path], None]
) -> None:
    model = a_loader.load("digits", 1)
    folder = a_loader.store.path("digits", 1)
    (folder / "MODEL_CARD.md").touch()
    assert a_loader.is_still(model)
    with (folder / "MODEL_CARD.md").open("a") as card:
        card.write("\nMore.\n")
    with pytest.raises(BundleTampered, match=r"MODEL_CARD\.md"):
        a_loader.is_still(model)
    sign(folder)
    assert not a_loader.is_still(model)


def test_a_model_that_is_required_stops_the_start_where_none_of_its_versions_passes(
    a_loader: Loader, repository: Path, measured: list[bool]
) -> None:
    root = a_loader.store.root
    shutil.copytree(repository / "model_store" / "mnist", root / "mnist")
    (root / "digits" / "1" / "saved_model.pb").write_bytes(b"")
    loaded = load_store(a_loader)
    assert [model.name for model in loaded.models] == ["mnist"]
    assert [(rejection.name, rejection.code) for rejection in loaded.rejections] == [("digits", "bundle_tampered")]
    with pytest.raises(BundleTampered):
        load_store(a_loader, required="digits")
    shutil.rmtree(root / "mnist")
    with pytest.raises(BundleTampered):
        load_store(a_loader)


def test_a_version_that_is_taken_away_while_it_is_read_is_not_found(
    a_loader: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanish(path: Path, **_: object) -> LoadedModel:
        raise FileNotFoundError(2, "No such file or directory", str(path / "golden" / "00.png"))

    monkeypatch.setattr(versions, "load_model", vanish)
    with pytest.raises(BundleNotFound, match="No such file"):
        a_loader.load("digits", 1)


def test_a_load_pauses_between_the_networks_that_it_compiles(a_loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    prepare = OpenVinoEngine.prepare

    def recorded(engine: OpenVinoEngine, batch_size: int) -> None:
        steps.append("prepare")
        prepare(engine, batch_size)

    first = a_loader.load("digits", 1)
    monkeypatch.setattr(OpenVinoEngine, "prepare", recorded)
    a_loader.load("digits", 1, like=first, pause=lambda: steps.append("pause"))

    assert steps.count("prepare") > len(first.tuning.batch_seconds)
    assert "prepare prepare" not in " ".join(steps)
