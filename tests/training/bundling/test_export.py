"""Publishing: nothing half-written is ever where a service would look."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from app.contract.bundle import Signature, open_bundle
from app.contract.preprocessing import PreprocessingSpec
from app.contract.store import ModelStore
from app.engines.openvino import open_openvino
from app.engines.tensorflow import import_tensorflow, open_tensorflow
from app.errors import SelfCheckFailed
from tests.training.fit_options import fit_options
from training.bundling.export import check_can_publish, open_draft
from training.errors import OptionError, PublishError
from training.model.presets import preset_named
from training.model.saved_model import save
from training.options import FitOptions, with_recipe
from training.pipeline import train_and_publish
from training.progress import Reporter


def options(store: Path, data: Path) -> FitOptions:
    preset = with_recipe(preset_named("seed"), {"epochs": 1, "batch_size": 256})
    return fit_options(store, preset, data=str(data), name="digits", report=False)


def test_versions_count_up_old_ones_stay_and_the_same_seed_gives_the_same_split(
    tmp_path: Path, few_digits: Path
) -> None:
    first = train_and_publish(options(tmp_path, few_digits), Reporter()).bundle
    assert first.version == 1
    before = (tmp_path / "digits" / "1" / "manifest.json").read_bytes()
    second = train_and_publish(options(tmp_path, few_digits), Reporter()).bundle
    assert second.version == 2
    assert (tmp_path / "digits" / "1" / "manifest.json").read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "digits").iterdir()) == ["1", "2"]
    assert first.manifest.split == second.manifest.split


def test_a_bundle_records_how_it_was_made(trained_store: Path) -> None:
    bundle = open_bundle(trained_store / "digits" / "1")
    manifest, metrics = bundle.manifest, bundle.metrics()
    assert str(manifest.training["command"]).startswith("python -m training fit --data digits --name digits")
    assert manifest.training["preset"] == "seed"
    assert manifest.split["seed"] == manifest.training["seed"] == 0
    assert {"tensorflow", "keras", "openvino", "numpy"} <= manifest.libraries.keys()
    assert 0 < metrics["test"]["accuracy"] <= 1
    assert metrics["test"]["loss"] > 0
    assert 0 < metrics["train"]["accuracy"] <= 1
    assert metrics["fit_seconds"] > 0
    assert metrics["parameters"] == 121_930
    assert len(metrics["epochs"]) == 2
    assert manifest.metrics["test.accuracy"] == metrics["test"]["accuracy"]
    assert "## Data, licence and limits" in bundle.card()


@pytest.mark.parametrize("step", ["digests", "load_model", "make_durable"])
def test_a_crash_while_exporting_leaves_nothing_but_the_run_to_be_resumed(
    tmp_path: Path, few_digits: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def crash(*_: object) -> None:
        raise SelfCheckFailed("the model lies")

    monkeypatch.setattr(f"training.bundling.export.{step}", crash)
    with pytest.raises(SelfCheckFailed):
        train_and_publish(options(tmp_path, few_digits), Reporter())
    assert [path.name for path in (tmp_path / "digits").iterdir()] == [".runs"]


def test_what_a_killed_export_leaves_is_no_model_and_no_version(tmp_path: Path, trained_store: Path) -> None:
    shutil.copytree(trained_store / "digits" / "1", tmp_path / "digits" / ".building-x" / "digits" / "1")
    store = ModelStore(tmp_path)
    assert store.names() == []
    assert store.versions("digits") == []


def test_a_disk_full_while_exporting_is_one_sentence(
    tmp_path: Path, few_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("training.bundling.export.make_durable", full)
    with pytest.raises(PublishError, match=r"disk of .* is full"):
        train_and_publish(options(tmp_path, few_digits), Reporter())
    assert [path.name for path in (tmp_path / "digits").iterdir()] == [".runs"]


def test_a_store_that_cannot_be_written_is_told_before_training(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file, not a folder")
    with pytest.raises(PublishError, match="cannot be written"):
        check_can_publish(ModelStore(tmp_path / "store"), "digits")


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "a b", "x" * 65, "é"])
def test_what_is_no_model_name_is_told_before_training(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match="not a model name"):
        check_can_publish(ModelStore(tmp_path), name)


def test_checking_leaves_no_trace(tmp_path: Path) -> None:
    check_can_publish(ModelStore(tmp_path), "digits")
    assert list(tmp_path.iterdir()) == []


def test_a_draft_that_is_not_published_leaves_nothing(tmp_path: Path) -> None:
    spec = PreprocessingSpec(height=8, width=8, colour="grey")
    with open_draft(ModelStore(tmp_path), "digits", labels=("a", "b"), preprocessing=spec) as draft:
        draft.folder.mkdir(parents=True)
        assert draft.version == 1
        assert ModelStore(tmp_path).names() == []
    assert list(tmp_path.iterdir()) == []


def test_a_version_that_appears_meanwhile_is_not_overwritten(
    tmp_path: Path, few_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "digits" / "1"

    def another_run_is_faster(_: Path) -> None:
        other.mkdir()
        (other / "manifest.json").write_text(json.dumps({}))

    monkeypatch.setattr("training.bundling.export.make_durable", another_run_is_faster)
    with pytest.raises(PublishError, match="another run"):
        train_and_publish(options(tmp_path, few_digits), Reporter())
    assert (other / "manifest.json").read_text() == "{}"


def test_a_bundle_holds_the_weights_and_no_optimizer(trained_store: Path) -> None:
    weights = trained_store / "digits" / "1" / "variables" / "variables.data-00000-of-00001"
    assert 121_930 * 4 <= weights.stat().st_size < 121_930 * 4 * 1.1


def test_a_network_within_a_network_is_read_by_openvino_too(tmp_path: Path) -> None:
    import_tensorflow()
    import keras

    backbone = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()])
    pictures = keras.Input((8, 8, 1), dtype="uint8")
    hidden = backbone(keras.layers.Rescaling(1 / 255)(pictures))
    probabilities = keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(hidden))
    signature = Signature.of(PreprocessingSpec(height=8, width=8, colour="grey"), ["a", "b"])
    save(keras.Model(pictures, probabilities), tmp_path, signature)
    batch = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    by_tensorflow = open_tensorflow(tmp_path, signature, threads=1).predict(batch)
    by_openvino = open_openvino(tmp_path, signature, threads=1).predict(batch)
    assert np.abs(by_tensorflow - by_openvino).max() < 1e-5
