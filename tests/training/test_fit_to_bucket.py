"""`fit --model-store s3://…`: what it has of the bucket before the training, and what becomes of the version then."""

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.contract.bundle import open_bundle
from app.contract.location import BucketAddress
from app.contract.store import ModelStore
from app.engines.loading import LoadedModel, load_model
from app.object_storage.bucket import Bucket
from app.object_storage.store import BucketStore
from tests.versions import version_of
from training.__main__ import cli
from training.options import FitOptions
from training.progress import Reporter


@pytest.fixture
def mnist(repository: Path) -> Path:
    return repository / "model_store" / "mnist" / "1"


@pytest.fixture
def published(mnist: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[FitOptions]:
    """Have `fit` publish a version that was trained before; the options of each run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    runs: list[FitOptions] = []

    def train_and_publish(options: FitOptions, _reporter: Reporter, *, again: str | None = None) -> LoadedModel:
        runs.append(options)
        store = ModelStore(options.model_store)
        version = (store.versions("mnist") or [0])[-1] + 1
        made = version_of(mnist, version, tmp_path / f"built {len(runs)}")
        store.root.joinpath("mnist").mkdir(parents=True, exist_ok=True)
        store.publish(made.path, "mnist", version, held_back="worse" if options.against else None)
        return load_model(store.path("mnist", version))

    monkeypatch.setattr("training.pipeline.train_and_publish", train_and_publish)
    return runs


def fit(address: BucketAddress, *options: str) -> Result:
    given = ["--data", "digits", "--name", "mnist", "--preset", "seed", "--model-store", str(address), *options]
    return CliRunner().invoke(cli, ["fit", *given])


def versions_in(address: BucketAddress) -> list[int]:
    return BucketStore(address).contents().versions("mnist")


def test_versions_are_numbered_and_pushed_one_after_another(
    published: list[FitOptions], bucket: BucketAddress, tmp_path: Path
) -> None:
    for number in (1, 2):
        done = fit(bucket)
        assert done.exit_code == 0, done.output
        assert f"pushed to {bucket.url}; to serve this version alone: {bucket.url}@sha256:" in done.output
        assert f"--model-store {bucket.url} --model mnist" in done.output
        assert versions_in(bucket) == list(range(1, number + 1))
        shutil.rmtree(tmp_path / "cache")  # the next one runs on another machine


def test_a_run_pulls_the_live_and_the_newest_version_and_pushes_the_held_back_mark(
    published: list[FitOptions], bucket: BucketAddress, mnist: Path, tmp_path: Path
) -> None:
    remote = BucketStore(bucket)
    for number in (1, 2, 3):
        remote.push(version_of(mnist, number, tmp_path / "pushed"), held_back=None)
    remote.pin("mnist", 1)
    done = fit(bucket, "--against", "live")
    assert done.exit_code == 0, done.output
    store = ModelStore(published[0].model_store)
    assert (store.versions("mnist"), store.pinned("mnist")) == ([1, 3, 4], 1)
    assert remote.contents().held_back("mnist") == {4}
    assert f"models promote mnist 4 --model-store {bucket.url}" in done.output


def test_a_bucket_gone_at_the_end_keeps_the_version_here_and_says_how_to_push_it(
    published: list[FitOptions], bucket: BucketAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_self: BucketStore, *_given: object, **_more: object) -> bool:
        Bucket(BucketAddress("s3://no-such-bucket")).entries()
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(BucketStore, "push", gone)
        done = fit(bucket)
    assert done.exit_code == 1
    [path] = re.findall(r"The bundle is in (\S+)\.", done.output)
    assert open_bundle(Path(path)).version == 1
    assert f"models push mnist --version 1 --to {bucket.url} --model-store {Path(path).parents[1]}" in done.output
    assert "Traceback" not in done.output


def test_a_bucket_that_cannot_be_reached_is_told_before_the_training(
    published: list[FitOptions], bucket: BucketAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    done = fit(bucket)
    assert (done.exit_code, published) == (1, [])
    assert f"error: {bucket.url} cannot be listed: it refuses connections." in done.output


@pytest.mark.parametrize(
    ("options", "sentence"),
    [(["--keep", "2"], "--keep works on folders only"), (["--against", "7"], "There is no model 'mnist'")],
)
def test_what_does_not_go_with_a_bucket_is_told_before_the_training(
    published: list[FitOptions], bucket: BucketAddress, options: list[str], sentence: str
) -> None:
    done = fit(bucket, *options)
    assert (done.exit_code, published) == (1, [])
    assert sentence in done.output


def test_commands_that_need_a_folder_say_how_to_have_one(bucket: BucketAddress) -> None:
    command = ["evaluate", "--model", "mnist", "--data", "digits", "--model-store", str(bucket)]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 1
    assert f"models pull NAME --from {bucket.url}" in done.output
