"""`python -m app models …` and `predict` on a bucket."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.__main__ import cli
from app.contract.bundle import open_bundle
from app.contract.location import BucketAddress
from app.contract.store import ModelStore
from app.object_storage.bucket import Bucket
from app.object_storage.store import BucketStore, manifest_digest
from tests.object_storage.conftest import Push


@pytest.fixture(autouse=True)
def copies_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGECLASS_MODEL_CACHE", str(tmp_path / "cache"))


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, words, env={"COLUMNS": "300"})


def models(command: str, *words: str, store: BucketAddress | Path) -> Result:
    return run("models", command, *words, "--model-store", str(store))


def test_a_version_goes_from_a_folder_to_a_bucket_and_back(
    bucket: BucketAddress, repository: Path, tmp_path: Path
) -> None:
    pushed = models("push", "mnist", "--to", bucket.url, store=repository / "model_store")
    digest = manifest_digest(repository / "model_store" / "mnist" / "1")
    assert pushed.output == (
        f"mnist version 1 is published in {bucket.url}. "
        f"To serve it alone: IMAGECLASS_MODEL_STORE={bucket.url}@sha256:{digest}\n"
    )
    again = models("push", "mnist", "--to", bucket.url, store=repository / "model_store")
    assert "mnist version 1 is there already, the same" in again.output
    pulled = models("pull", "mnist", "--from", bucket.url, store=tmp_path / "here")
    assert pulled.exit_code == 0, pulled.output
    open_bundle(tmp_path / "here" / "mnist" / "1")
    refused = models("pull", "mnist", "--from", bucket.url, store=tmp_path / "here")
    assert refused.exit_code == 1
    assert "error: " in refused.stderr
    assert "exists already" in refused.stderr


def test_a_version_that_is_held_back_stays_so_on_both_ways(bucket: BucketAddress, mnist: Path, tmp_path: Path) -> None:
    folder = ModelStore(tmp_path / "folder")
    (folder.root / "mnist").mkdir(parents=True)
    (folder.root / "mnist" / "1").symlink_to(mnist)
    (folder.root / "mnist" / "1.held").write_text("worse than version 0.\n")
    assert (
        "It is held back: worse than version 0."
        in models("push", "mnist", "--to", bucket.url, store=folder.root).output
    )
    models("pull", "mnist", "--from", bucket.url, store=tmp_path / "here")
    assert ModelStore(tmp_path / "here").why_held_back("mnist", 1) == "worse than version 0."


def test_a_version_goes_from_one_bucket_to_another(bucket: BucketAddress, push: Push) -> None:
    push(1)
    other = BucketAddress(f"{bucket.url}-other")
    assert models("push", "mnist", "--to", other.url, store=bucket).exit_code == 0
    assert BucketStore(other).contents().versions("mnist") == [1]


def test_what_a_bucket_holds_is_listed_with_pins_and_pushes_that_were_broken_off(
    bucket: BucketAddress, push: Push
) -> None:
    push(1)
    push(2, held_back="worse")
    Bucket(bucket).upload("mnist/3.publisher", b"another\n")
    assert models("pin", "mnist", "1", store=bucket).exit_code == 0
    listed = models("list", store=bucket).stdout
    states = [line.rsplit("│", 2)[1].strip() for line in listed.splitlines() if "│ mnist" in line]
    assert states == ["pinned", "held back", "unfinished push"]
    shown = models("show", "mnist", store=bucket)
    assert "Version 1 is pinned. It is held back. To serve it alone: IMAGECLASS_MODEL_STORE=" in shown.stderr


def test_a_bucket_is_changed_by_the_commands_that_change_a_folder(bucket: BucketAddress, push: Push) -> None:
    remote = BucketStore(bucket)
    for number in (1, 2):
        push(number)
    push(3, held_back="worse")
    done = [
        models("verify", "mnist", store=bucket),
        models("rollback", "mnist", store=bucket),
        models("preview", "mnist", "3", store=bucket),
        models("preview", "mnist", "--end", store=bucket),
        models("promote", "mnist", "3", store=bucket),
        models("unpin", "mnist", store=bucket),
        models("remove", "mnist", "2", store=bucket),
    ]
    assert [each.exit_code for each in done] == [0] * 7, [each.output for each in done]
    assert "mnist is pinned to version 1" in done[1].output
    contents = remote.contents()
    assert (contents.versions("mnist"), remote.serving_order(contents, "mnist")) == ([1, 3], [3, 1])
    refused = models("remove", "mnist", "3", store=bucket)
    assert refused.exit_code == 1
    assert "Version 3 of mnist is live" in refused.stderr


def test_pictures_are_classified_by_the_model_of_a_bucket(
    bucket: BucketAddress, push: Push, data_folder: Path, tmp_path: Path
) -> None:
    push(1)
    given = ["predict", str(data_folder / "7-00000.png"), "--model-store", bucket.url]
    assert run(*given, "--json").stdout.startswith('{"file"')
    done = run(*given, "--output", "jsonl", "--shards", str(tmp_path / "parts"))
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("push", "mnist", "--to", "folder"), "--to folder is a folder. Name a bucket"),
        (("pull", "mnist", "--from", "s3://"), "'s3://' is not an address"),
        (("pull", "mnist", "--from", "BUCKET", "--model-store", "BUCKET"), "models pull copies into a folder"),
        (("pull", "mnist", "--from", "BUCKET"), "There is no model 'mnist' in s3://"),
        (("list", "--model-store", "s3://no-such-bucket"), "404 NoSuchBucket"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(words: tuple[str, ...], sentence: str, bucket: BucketAddress) -> None:
    done = run("models", *(word.replace("BUCKET", bucket.url) for word in words))
    assert done.exit_code == 1
    assert sentence in done.stderr
    assert len([line for line in done.stderr.splitlines() if line]) == 1
