"""This machine's copy of a bucket: what is pulled, what goes, and what happens if something is in the way."""

import os
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.contract.bundle import MANIFEST, open_bundle
from app.contract.location import BucketAddress
from app.errors import BundleNotFound, InvalidSetting
from app.object_storage import mirror as module
from app.object_storage.bucket import Bucket
from app.object_storage.mirror import Mirror
from app.object_storage.pull import pull
from app.object_storage.store import BucketStore, manifest_digest
from app.system.folder_lock import lock_if_free
from tests.object_storage.conftest import OpenMirror, Push


def served(mirror: Mirror, name: str = "mnist") -> int:
    """Return the version that a service on the copy would serve."""
    return mirror.store.serving_order(name, mirror.store.pinned(name))[0]


def look(mirror: Mirror) -> bool:
    return mirror.follow(every_s=0)


@contextmanager
def unreachable() -> Iterator[None]:
    """Have nothing answer where the bucket was."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        yield


# What is served


def test_the_start_pulls_what_is_to_be_served_and_nothing_else(push: Push, open_mirror: OpenMirror) -> None:
    for version in (1, 2):
        push(version)
    mirror = open_mirror()
    mirror.start()
    assert mirror.store.versions("mnist") == [2]
    open_bundle(mirror.store.path("mnist", 2))


def test_a_new_version_is_there_after_the_next_look(push: Push, open_mirror: OpenMirror) -> None:
    push(1)
    mirror = open_mirror()
    mirror.start()
    push(2)
    assert look(mirror)
    assert served(mirror) == 2


def test_pins_promotions_and_removals_are_followed(push: Push, open_mirror: OpenMirror, bucket: BucketAddress) -> None:
    remote = BucketStore(bucket)
    push(1)
    push(2)
    push(3, held_back="worse")
    mirror = open_mirror()
    mirror.start()
    assert served(mirror) == 2
    remote.pin("mnist", 1)
    look(mirror)
    assert served(mirror) == 1
    remote.pin("mnist", 3)
    look(mirror)
    assert (served(mirror), mirror.store.held_back("mnist")) == (3, {3})
    remote.unpin("mnist")
    look(mirror)
    assert served(mirror) == 2
    remote.promote("mnist", 3)
    look(mirror)
    assert (served(mirror), mirror.store.held_back("mnist")) == (3, set())
    remote.pin("mnist", 2)
    remote.remove("mnist", 3)
    look(mirror)
    assert mirror.store.versions("mnist") == [1, 2]


def test_a_preview_is_pulled_and_kept_beside_what_is_served(
    push: Push, open_mirror: OpenMirror, bucket: BucketAddress
) -> None:
    remote = BucketStore(bucket)
    push(1)
    push(2, held_back="worse")
    mirror = open_mirror()
    mirror.start()
    assert mirror.store.versions("mnist") == [1]
    remote.begin_preview("mnist", 2)
    look(mirror)
    assert (served(mirror), mirror.store.preview("mnist"), mirror.store.held_back("mnist")) == (1, 2, {2})
    remote.promote("mnist", 2)
    look(mirror)
    assert (served(mirror), mirror.store.preview("mnist")) == (2, None)
    for end in (partial(remote.end_preview, "mnist"), partial(remote.begin_preview, "mnist", 2)):
        remote.begin_preview("mnist", 1)
        look(mirror)
        assert mirror.store.preview("mnist") == 1
        end()
        look(mirror)
        assert (served(mirror), mirror.store.preview("mnist")) == (2, None)
    remote.begin_preview("mnist", 1)
    remote.remove("mnist", 1)
    assert remote.preview(remote.contents(), "mnist") is None


def test_a_marker_that_a_listing_has_missed_holds_a_version_back_all_the_same(
    push: Push, open_mirror: OpenMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of several pages, the first may be older than the marker, and the last one newer than the manifest."""
    push(1)
    mirror = open_mirror()
    mirror.start()
    push(2, held_back="worse")
    entries = Bucket.entries
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "entries", lambda self: {k: v for k, v in entries(self).items() if k != "mnist/2.held"})
        look(mirror)
        assert (served(mirror), mirror.store.held_back("mnist")) == (1, {2})
    look(mirror)
    assert served(mirror) == 1


def test_a_pin_on_a_version_that_is_not_there_leaves_what_serves_and_is_told_once(
    push: Push, open_mirror: OpenMirror, bucket: BucketAddress
) -> None:
    push(1)
    mirror = open_mirror()
    mirror.start()
    Bucket(bucket).upload("mnist/pinned", b"7\n")
    with capture_logs() as log:
        look(mirror)
        look(mirror)
    assert served(mirror) == 1
    assert [line["reason"] for line in log] == [f"Version 7 of mnist is pinned, but is not in {bucket.url}."]


def test_a_bucket_that_has_lost_a_model_changes_nothing(
    push: Push, open_mirror: OpenMirror, bucket: BucketAddress
) -> None:
    push(1)
    mirror = open_mirror()
    mirror.start()
    objects = Bucket(bucket)
    objects.delete(*objects.entries())
    with capture_logs() as log:
        look(mirror)
        look(mirror)
    assert served(mirror) == 1
    assert [line["reason"] for line in log] == [
        f"{bucket.url} holds no version of mnist any more. The version that was pulled stays live."
    ]


def test_a_version_that_was_removed_and_pushed_anew_replaces_the_copy(
    push: Push, open_mirror: OpenMirror, bucket: BucketAddress
) -> None:
    push(1)
    push(2)
    mirror = open_mirror()
    mirror.start()
    remote = BucketStore(bucket)
    remote.pin("mnist", 1)
    remote.remove("mnist", 2)
    remote.unpin("mnist")
    anew = push(2, created_at="2026-01-01T00:00:00Z")
    look(mirror)
    assert open_bundle(mirror.store.path("mnist", 2)).manifest == anew.manifest


def test_an_empty_bucket_ends_the_start_with_what_to_do(open_mirror: OpenMirror, bucket: BucketAddress) -> None:
    with pytest.raises(BundleNotFound, match=rf"{bucket.url} holds no model. Push one: .* models push NAME --to s3://"):
        open_mirror().start()


# Whole or not at all


def test_a_push_under_way_is_not_seen_and_what_serves_keeps_serving(
    push: Push, open_mirror: OpenMirror, bucket: BucketAddress, tmp_path: Path
) -> None:
    push(1)
    mirror = open_mirror()
    mirror.start()
    seen: list[tuple[int, list[int]]] = []
    second = push(2)
    objects = Bucket(bucket)
    objects.delete(f"mnist/2/{MANIFEST}")  # as before the last write

    def watch(path: str) -> None:
        look(mirror)
        seen.append((served(mirror), mirror.store.versions("mnist")))

    BucketStore(bucket).push(second, held_back=None, advance=watch)
    assert set(map(str, seen)) == {"(1, [1])"}
    look(mirror)
    assert served(mirror) == 2


def test_a_damaged_version_is_passed_over_and_told_once(
    push: Push, open_mirror: OpenMirror, bucket: BucketAddress
) -> None:
    push(1)
    push(2)
    Bucket(bucket).upload("mnist/2/saved_model.pb", b"another program")
    mirror = open_mirror()
    with capture_logs() as log:
        mirror.start()
        look(mirror)
        look(open_mirror())  # another worker
    assert served(mirror) == 1
    [reason] = [line["reason"] for line in log if line["log_level"] == "error"]
    assert reason == (
        f"{bucket.url}/mnist/2: saved_model.pb is not the file that was exported (sha256 60f787c0cff5…). "
        "Push the version under another number."
    )


def test_a_version_whose_copy_was_damaged_is_pulled_again_at_the_start(push: Push, open_mirror: OpenMirror) -> None:
    push(1)
    mirror = open_mirror()
    mirror.start()
    (mirror.store.path("mnist", 1) / "saved_model.pb").write_bytes(b"half of it")
    open_mirror().start()
    open_bundle(mirror.store.path("mnist", 1))


def test_what_a_killed_download_has_left_behind_is_removed_by_the_next_start(
    push: Push, open_mirror: OpenMirror
) -> None:
    push(1)
    mirror = open_mirror()
    left_behind = mirror.store.root / "mnist" / ".pulling-abc"
    left_behind.mkdir(parents=True)
    (left_behind / "part").write_bytes(b"part")
    mirror.start()
    assert sorted(path.name for path in (mirror.store.root / "mnist").iterdir()) == ["1"]


# One pull for a machine


def test_many_workers_pull_a_version_once(push: Push, open_mirror: OpenMirror, monkeypatch: pytest.MonkeyPatch) -> None:
    push(1)
    pulled: list[int] = []

    def count(*given: object) -> Path:
        pulled.append(threading.get_ident())
        return pull(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "pull", count)
    mirrors = [open_mirror() for _ in range(6)]
    with ThreadPoolExecutor(len(mirrors)) as threads:
        list(threads.map(Mirror.start, mirrors))
        assert len(pulled) == 1
        push(2)
        list(threads.map(look, mirrors))
    for _ in range(2):  # those that had no turn
        list(map(look, mirrors))
    assert len(pulled) == 2
    assert {served(mirror) for mirror in mirrors} == {2}


def test_who_has_no_turn_does_not_ask_and_who_comes_soon_after_another_neither(
    push: Push, open_mirror: OpenMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(1)
    one, other = open_mirror(), open_mirror()
    one.start()
    asked: list[str] = []
    entries = Bucket.entries

    def count(self: Bucket) -> object:
        asked.append("")
        return entries(self)

    monkeypatch.setattr(Bucket, "entries", count)
    assert other.follow(every_s=60)
    assert asked == []
    with lock_if_free(one._own) as ours:
        assert ours
        assert other.follow(every_s=0)
    assert asked == []
    assert other.follow(every_s=0)
    assert asked == [""]


def test_a_clock_that_was_set_back_does_not_stop_the_looks(push: Push, open_mirror: OpenMirror) -> None:
    push(1)
    mirror = open_mirror()
    mirror.start()
    push(2)
    an_hour_ahead = time.time() + 3600
    os.utime(mirror._file, (an_hour_ahead, an_hour_ahead))
    mirror.follow(every_s=60)
    assert served(mirror) == 2


# An outage


def test_a_start_without_the_bucket_serves_what_was_pulled_and_says_so(push: Push, open_mirror: OpenMirror) -> None:
    push(1)
    mirror = open_mirror()
    mirror.start()
    before = mirror.health()
    assert (before.kind, before.reachable) == ("s3", True)
    with unreachable(), capture_logs() as log:
        again = open_mirror()
        again.start()
        assert served(again) == 1
        since = again.health().since
        assert (again.health().reachable, since > before.since) == (False, True)
        assert not look(again)
        assert again.health().since == since
    assert [line["event"] for line in log] == ["object store not reachable"]
    assert "refuses connections. The versions that were pulled stay live." in log[0]["reason"]
    with capture_logs() as log:
        assert look(open_mirror())
    assert again.health().reachable
    assert [line["event"] for line in log] == ["object store reachable"]


def test_a_first_start_without_the_bucket_says_why_there_is_nothing(
    bucket: BucketAddress, open_mirror: OpenMirror
) -> None:
    with unreachable(), pytest.raises(BundleNotFound, match=f"{bucket.url} cannot be listed: it refuses connections"):
        open_mirror().start()


# Room


def test_old_versions_go_from_the_copy_for_new_ones_but_never_what_is_served(
    push: Push, open_mirror: OpenMirror
) -> None:
    size = sum(file.stat().st_size for file in push(1).path.rglob("*") if file.is_file())
    mirror = open_mirror(max_bytes=int(2.5 * size))
    mirror.start()
    for version in (2, 3, 4):
        push(version)
        look(mirror)
        assert mirror.store.versions("mnist") == [version - 1, version]


def test_a_version_above_the_bound_is_not_pulled_and_told_once(push: Push, open_mirror: OpenMirror) -> None:
    size = sum(file.stat().st_size for file in push(1).path.rglob("*") if file.is_file())
    mirror = open_mirror(max_bytes=int(1.5 * size))
    mirror.start()
    push(2)
    with capture_logs() as log:
        look(mirror)
        look(mirror)
        look(open_mirror(max_bytes=int(1.5 * size)))
    assert served(mirror) == 1
    [reason] = [line["reason"] for line in log]
    assert f"it exceeds IMAGECLASS_MODEL_CACHE_BYTES={int(1.5 * size)}. Raise that." in reason


def test_a_disk_that_is_full_keeps_what_is_served_and_is_told_once_and_tried_again(
    push: Push, open_mirror: OpenMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(1)
    mirror = open_mirror()
    mirror.start()
    push(2)
    with monkeypatch.context() as full, capture_logs() as log:
        full.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10, 10, 0))
        look(mirror)
        look(mirror)
    assert served(mirror) == 1
    assert ["the disk is full. Make room there." in line["reason"] for line in log] == [True]
    monkeypatch.setattr(module, "_TRY_AGAIN_S", 0)
    mirror.start()
    assert served(mirror) == 2


def test_a_disk_that_becomes_full_during_a_download_leaves_nothing_behind(push: Push, open_mirror: OpenMirror) -> None:
    push(1)
    mirror = open_mirror()
    mirror.start()
    push(2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))  # the system rejects writes, as on a full disk
    try:
        with capture_logs() as log:
            look(mirror)
            look(mirror)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [line["reason"].partition(":")[0] for line in log] == ["The disk is full"]
    assert [path.name for path in (mirror.store.root / "mnist").iterdir()] == ["1"]


def test_a_copy_that_cannot_be_written_ends_the_start_with_the_setting_to_change(
    bucket: BucketAddress, open_mirror: OpenMirror, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidSetting, match=r"cannot be written: .* Set IMAGECLASS_MODEL_CACHE"):
        open_mirror(folder="file/below").start()


# A pinned digest


def test_a_pinned_digest_is_served_whatever_else_is_in_the_bucket(
    push: Push, open_mirror: OpenMirror, bucket: BucketAddress
) -> None:
    wanted = push(1, held_back="worse")
    push(2)
    BucketStore(bucket).pin("mnist", 2)
    mirror = open_mirror(BucketAddress(bucket.url, manifest_digest(wanted.path)))
    mirror.start()
    push(3)
    look(mirror)
    assert mirror.store.versions("mnist") == [1]
    assert served(mirror) == 1


def test_a_version_replaced_in_the_bucket_is_not_served_for_a_pinned_digest(
    push: Push, open_mirror: OpenMirror, bucket: BucketAddress
) -> None:
    wanted = push(1)
    pinned = BucketAddress(bucket.url, manifest_digest(wanted.path))
    objects = Bucket(bucket)
    manifest = objects.read(f"mnist/1/{MANIFEST}")
    assert manifest is not None
    objects.upload(f"mnist/1/{MANIFEST}", manifest.replace(b'"7"', b'"1"'))  # whoever can write could do this
    with pytest.raises(BundleNotFound, match=f"No version in {bucket.url} has a manifest.json with the sha256"):
        open_mirror(pinned).start()
    objects.upload(f"mnist/1/{MANIFEST}", manifest)
    objects.upload("mnist/1/saved_model.pb", b"another program")
    with pytest.raises(BundleNotFound, match=r"saved_model.pb is not the file that was exported"):
        open_mirror(pinned).start()


def test_what_somebody_put_into_the_copy_is_not_served_for_a_pinned_digest(
    push: Push, open_mirror: OpenMirror, bucket: BucketAddress
) -> None:
    wanted = push(1)
    other = push(2)
    mirror = open_mirror(BucketAddress(bucket.url, manifest_digest(wanted.path)))
    mirror.start()
    other.path.rename(mirror.store.path("mnist", 2))
    with unreachable():
        mirror.start()
    assert mirror.store.versions("mnist") == [1]


def test_another_version_is_not_fetched_for_a_pinned_digest(
    push: Push, open_mirror: OpenMirror, bucket: BucketAddress
) -> None:
    wanted = push(1)
    push(2)
    mirror = open_mirror(BucketAddress(bucket.url, manifest_digest(wanted.path)))
    mirror.start()
    with pytest.raises(BundleNotFound, match=f"Version 2 of mnist is not the one that {bucket.url}@sha256:"):
        mirror.fetch("mnist", 2)
    assert mirror.store.versions("mnist") == [1]


# By name, and by what passes


def test_a_version_is_fetched_by_its_number(push: Push, open_mirror: OpenMirror) -> None:
    push(1)
    push(2)
    mirror = open_mirror()
    assert mirror.fetch("mnist", 1) == mirror.store.path("mnist", 1)
    assert open_bundle(mirror.fetch("mnist")).version == 2
    with pytest.raises(BundleNotFound, match="has no version 3"):
        mirror.fetch("mnist", 3)


def test_if_what_was_pulled_does_not_pass_the_next_in_order_is_pulled(push: Push, open_mirror: OpenMirror) -> None:
    for version in (1, 2, 3):
        push(version)
    mirror = open_mirror()
    mirror.start()
    found = [mirror.store.versions("mnist")]
    while mirror.fetch_older():
        found.append(mirror.store.versions("mnist"))
    assert found == [[3], [2, 3], [1, 2, 3]]
