"""Versions in a bucket: whole or not there, whoever pushes and wherever a push is broken off."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from app.contract.bundle import MANIFEST, Bundle, open_bundle
from app.contract.location import BucketAddress
from app.contract.store import ModelStore
from app.errors import BundleNotFound, ImageclassError, StoreConflict
from app.object_storage.pull import pull
from app.object_storage.store import BucketStore
from tests.versions import version_of

BundleOf = dict[str, Bundle]


@pytest.fixture(scope="module")
def first(repository: Path) -> Bundle:
    return open_bundle(repository / "model_store" / "mnist" / "1")


@pytest.fixture(scope="module")
def other(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Another bundle of the same number."""
    made = tmp_path_factory.mktemp("other")
    return version_of(repository / "model_store" / "mnist" / "1", 1, made, created_at="2026-01-01T00:00:00Z")


class BrokenOff(Exception):
    """A push is killed here."""


def push_until(store: BucketStore, bundle: Bundle, writes: int, *, held_back: str | None = None) -> None:
    """Push, and break off before the write of that number."""
    done = iter(range(writes))

    def advance(_path: str) -> None:
        if next(done, None) is None:
            raise BrokenOff

    with pytest.raises(BrokenOff):
        store.push(bundle, held_back=held_back, advance=advance)


def writes_of(bundle: Bundle) -> int:
    """How many objects a push writes: claim, files, marker, manifest."""
    return len(bundle.manifest.files) + 3


def test_a_push_that_breaks_off_before_any_write_has_published_nothing(
    bucket: BucketAddress, first: Bundle, tmp_path: Path
) -> None:
    store = BucketStore(bucket)
    for writes in range(writes_of(first)):
        push_until(store, first, writes)
        assert store.contents().names() == []
        assert store.contents().unfinished("mnist") == ([1] if writes else [])
    assert store.push(first, held_back=None)
    assert store.contents().versions("mnist") == [1]
    assert store.contents().unfinished("mnist") == []
    pull(store, store.contents(), "mnist", 1, ModelStore(tmp_path))
    assert open_bundle(tmp_path / "mnist" / "1").manifest == first.manifest


def test_the_manifest_is_written_after_every_other_object(bucket: BucketAddress, first: Bundle) -> None:
    written: list[str] = []
    BucketStore(bucket).push(first, held_back="worse", advance=written.append)
    assert written[0] == "mnist/1.publisher"
    assert written[-2:] == ["mnist/1.held", f"mnist/1/{MANIFEST}"]
    assert len(written) == writes_of(first)


def test_a_version_is_pushed_once(bucket: BucketAddress, first: Bundle) -> None:
    store = BucketStore(bucket)
    assert store.push(first, held_back=None)
    assert not store.push(first, held_back=None)


def test_a_published_number_is_not_given_to_another_bundle(bucket: BucketAddress, first: Bundle, other: Bundle) -> None:
    store = BucketStore(bucket)
    store.push(first, held_back=None)
    with pytest.raises(StoreConflict, match=r"Version 1 of mnist in s3://.* is already published with other content"):
        store.push(other, held_back=None)
    assert store.manifest(store.contents(), "mnist", 1)[0] == first.manifest


def test_a_number_that_another_push_has_begun_is_not_taken_until_it_is_removed(
    bucket: BucketAddress, first: Bundle, other: Bundle
) -> None:
    store = BucketStore(bucket)
    push_until(store, first, 5, held_back="worse")
    with pytest.raises(StoreConflict, match=r"begun by another push.* models remove mnist 1 --model-store s3://"):
        store.push(other, held_back=None)
    store.remove("mnist", 1)
    assert store.bucket.entries() == {}
    assert store.push(other, held_back=None)


def test_of_two_who_push_one_number_at_once_one_succeeds_and_its_version_is_whole(
    bucket: BucketAddress, first: Bundle, other: Bundle, tmp_path: Path
) -> None:
    together = threading.Barrier(2)

    def push(bundle: Bundle) -> Bundle | None:
        store = BucketStore(bucket)
        together.wait()
        try:
            store.push(bundle, held_back=None)
        except StoreConflict:
            return None
        return bundle

    with ThreadPoolExecutor(2) as threads:
        published = [bundle for bundle in threads.map(push, (first, other)) if bundle is not None]
    assert len(published) == 1
    store = BucketStore(bucket)
    pull(store, store.contents(), "mnist", 1, ModelStore(tmp_path))
    assert open_bundle(tmp_path / "mnist" / "1").manifest == published[0].manifest


def test_a_version_that_is_held_back_stays_so_until_it_is_promoted(
    bucket: BucketAddress, first: Bundle, tmp_path: Path
) -> None:
    store = BucketStore(bucket)
    store.push(first, held_back="worse than the live one")
    assert store.serving_order(store.contents(), "mnist") == []
    pull(store, store.contents(), "mnist", 1, ModelStore(tmp_path))
    assert ModelStore(tmp_path).why_held_back("mnist", 1) == "worse than the live one"
    store.promote("mnist", 1)
    assert store.serving_order(store.contents(), "mnist") == [1]
    with pytest.raises(StoreConflict, match="is not held back"):
        store.promote("mnist", 1)


def test_a_pin_goes_before_newer_versions_and_what_is_live_is_not_removed(
    bucket: BucketAddress, repository: Path, first: Bundle, tmp_path: Path
) -> None:
    store = BucketStore(bucket)
    for version in (1, 2, 3):
        store.push(version_of(first.path, version, tmp_path), held_back=None)
    assert store.serving_order(store.contents(), "mnist") == [3, 2, 1]
    store.pin("mnist", 2)
    assert store.serving_order(store.contents(), "mnist") == [2, 3, 1]
    with pytest.raises(StoreConflict, match="Version 2 of mnist is live"):
        store.remove("mnist", 2)
    store.remove("mnist", 3)
    store.unpin("mnist")
    assert store.serving_order(store.contents(), "mnist") == [2, 1]
    assert not [path for path in store.bucket.entries() if path.startswith("mnist/3")]


def test_what_is_not_there_is_told_with_what_is(bucket: BucketAddress, first: Bundle) -> None:
    store = BucketStore(bucket)
    with pytest.raises(BundleNotFound, match=r"no model 'mnist' in s3://.*; it holds: none"):
        store.pin("mnist", 1)
    store.push(first, held_back=None)
    with pytest.raises(BundleNotFound, match=r"mnist has no version 2; it has: 1"):
        store.promote("mnist", 2)


def test_a_file_that_was_changed_or_removed_in_the_bucket_is_not_copied(
    bucket: BucketAddress, first: Bundle, tmp_path: Path
) -> None:
    store = BucketStore(bucket)
    store.push(first, held_back=None)
    file = "mnist/1/saved_model.pb"
    for change in (partial(store.bucket.upload, file, b"another program"), partial(store.bucket.delete, file)):
        change()
        with pytest.raises(ImageclassError, match=r"saved_model.pb is (not the file that was exported|missing)"):
            pull(store, store.contents(), "mnist", 1, ModelStore(tmp_path))
        assert list((tmp_path / "mnist").iterdir()) == []
