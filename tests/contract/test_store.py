"""Which models and versions a folder holds."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app.contract.store import ModelStore, is_model_name
from app.errors import BundleNotFound, StoreConflict


def store_with(root: Path, *folders: str) -> ModelStore:
    for folder in folders:
        (root / folder).mkdir(parents=True)
    return ModelStore(root)


def test_models_are_sorted_by_name(tmp_path: Path) -> None:
    assert store_with(tmp_path, "mnist/1", "Flowers/3", "digits/2").names() == ["Flowers", "digits", "mnist"]


def test_versions_are_sorted_as_numbers(tmp_path: Path) -> None:
    store = store_with(tmp_path, "digits/10", "digits/9", "digits/2", "digits/1")
    assert store.versions("digits") == [1, 2, 9, 10]
    assert store.newest("digits") == store.path("digits", 10) == tmp_path / "digits" / "10"


@pytest.mark.parametrize("folder", [".building-x1", "0", "01", "-1", "1.0", "v1", "1_0", "٣", "latest", "1" * 19])
def test_folder_that_is_no_version_is_not_looked_at(tmp_path: Path, folder: str) -> None:
    store = store_with(tmp_path, "digits/1", f"digits/{folder}", f"others/{folder}")
    assert store.versions("digits") == [1]
    assert store.names() == ["digits"]


@pytest.mark.parametrize("folder", [".git", ".building", "_old", "a b", "ä", "-x", "x-", "x.", "x" * 65])
def test_folder_that_is_no_model_name_is_not_looked_at(tmp_path: Path, folder: str) -> None:
    store = store_with(tmp_path, "digits/1", f"{folder}/1")
    assert store.names() == ["digits"]
    assert store.versions(folder) == []


def test_model_without_versions_is_none(tmp_path: Path) -> None:
    assert store_with(tmp_path, "digits").names() == []


def test_files_are_no_models(tmp_path: Path) -> None:
    store = store_with(tmp_path, "digits/1")
    (tmp_path / "README.md").write_text("models")
    (tmp_path / "notes").write_text("")
    assert store.names() == ["digits"]
    assert store.versions("notes") == []


@pytest.mark.parametrize("name", ["a", "7", "digits", "Digits-2.1_b", "x" * 64, "a..b"])
def test_model_names_are_parts_of_urls_and_paths(name: str) -> None:
    assert is_model_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../digits", "a/b", "a\\b", ".a", "a.", "_a", "a b", "a\n", "é", "a%20b", "x" * 65]
)
def test_other_names_are_no_model_names(name: str) -> None:
    assert not is_model_name(name)


@pytest.mark.parametrize("name", ["..", "../outside", ".", "/outside", "store/../../outside"])
def test_names_never_lead_out_of_the_store(tmp_path: Path, name: str) -> None:
    store = store_with(tmp_path / "store", "digits/1")
    (tmp_path / "outside" / "1").mkdir(parents=True)
    assert store.versions(name) == []
    with pytest.raises(BundleNotFound):
        store.newest(name)


def test_model_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    store = store_with(tmp_path, "digits/1", "mnist/1")
    with pytest.raises(BundleNotFound, match=r"There is no model 'cats' in .*; it holds: digits, mnist\."):
        store.newest("cats")


def test_empty_store_holds_none(tmp_path: Path) -> None:
    assert ModelStore(tmp_path).names() == []
    with pytest.raises(BundleNotFound, match="it holds: none"):
        ModelStore(tmp_path).newest("digits")


def test_store_that_is_not_there_says_which_setting_to_change(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "nowhere")
    for ask in (store.names, lambda: store.newest("digits")):
        with pytest.raises(BundleNotFound, match=r"nowhere does not exist\. Set IMAGECLASS_MODEL_STORE"):
            ask()


def test_store_that_is_a_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleNotFound, match=r"cannot be read \(Not a directory\)"):
        ModelStore(tmp_path / "file").names()


def test_store_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    store = store_with(tmp_path / "closed", "digits/1")
    store.root.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)  # root may read everything, nobody may not
        with pytest.raises(BundleNotFound, match=r"cannot be read \(Permission denied\)"):
            store.names()
    finally:
        os.seteuid(user)
        store.root.chmod(0o700)


def test_a_pinned_version_is_named_until_it_is_unpinned(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    for version in (1, 2):
        (tmp_path / "cats" / str(version)).mkdir(parents=True)
    assert store.pinned("cats") is None
    store.pin("cats", 1)
    assert store.pinned("cats") == 1
    assert store.versions("cats") == [1, 2], "the pin is no version"
    store.unpin("cats")
    assert store.pinned("cats") is None


def test_a_preview_ends_with_its_version_and_when_it_is_to_be_live(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    for version in (1, 2, 3):
        (tmp_path / "cats" / str(version)).mkdir(parents=True)
    (tmp_path / "cats" / "3.held").touch()
    for change in (store.pin, store.promote, store.remove):
        store.begin_preview("cats", 3)
        assert (store.preview("cats"), store.versions("cats")) == (3, [1, 2, 3])
        change("cats", 3)
        assert store.preview("cats") is None
    store.begin_preview("cats", 1)
    store.end_preview("cats")
    assert store.preview("cats") is None
    store.begin_preview("cats", 2)
    store.pin("cats", 1)
    assert store.preview("cats") == 2, "it is another version"
    with pytest.raises(BundleNotFound, match="has no version 9"):
        store.begin_preview("cats", 9)


def test_what_is_not_there_cannot_be_pinned(tmp_path: Path) -> None:
    (tmp_path / "cats" / "1").mkdir(parents=True)
    with pytest.raises(BundleNotFound, match="no version 7; it has: 1"):
        ModelStore(tmp_path).pin("cats", 7)


def test_a_pin_that_names_no_version_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "cats" / "1").mkdir(parents=True)
    (tmp_path / "cats" / "pinned").write_text("newest")
    with pytest.raises(BundleNotFound, match="models pin cats VERSION"):
        ModelStore(tmp_path).pinned("cats")


def publish(store: ModelStore, version: int, *, held_back: str | None = None) -> None:
    building = store.root / "cats" / ".building"
    building.mkdir(parents=True)
    (building / "manifest.json").write_text(str(version))
    store.publish(building, "cats", version, held_back=held_back)


def entries(store: ModelStore) -> list[str]:
    return sorted(entry.name for entry in (store.root / "cats").iterdir())


def test_a_pinned_version_is_served_first_and_then_the_newest_that_is_not_held_back(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    publish(store, 1)
    publish(store, 2)
    publish(store, 3, held_back="version 3 is worse")
    assert store.versions("cats") == [1, 2, 3]
    assert store.newest("cats").name == "3"
    assert store.serving_order("cats", None) == [2, 1]
    assert store.serving_order("cats", 1) == [1, 2]
    assert store.serving_order("cats", 3) == [3, 2, 1], "a person has pinned it"
    assert (store.why_held_back("cats", 3), store.why_held_back("cats", 2)) == ("version 3 is worse", None)


def test_a_version_is_marked_before_it_is_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ModelStore(tmp_path)
    publish(store, 1)
    rename, seen = Path.rename, []

    def look_and_rename(self: Path, target: Path) -> Path:
        seen.append((store.held_back("cats"), store.versions("cats")))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", look_and_rename)
    publish(store, 2, held_back="worse")
    assert seen == [({2}, [1])]


def test_a_version_that_is_published_while_the_store_is_read_is_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ModelStore(tmp_path)
    publish(store, 1)
    held_back = ModelStore.held_back

    def publish_meanwhile(self: ModelStore, name: str) -> set[int]:
        found = held_back(self, name)
        monkeypatch.undo()
        publish(self, 2, held_back="worse")
        return found

    monkeypatch.setattr(ModelStore, "held_back", publish_meanwhile)
    assert store.serving_order("cats", None) == [1]
    assert store.versions("cats") == [1, 2]


def test_the_next_version_clears_a_marker_left_by_a_kill_before_the_rename(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    publish(store, 1)
    (tmp_path / "cats" / ".building").mkdir()
    killed = (
        "import os, signal; from pathlib import Path; from app.contract.store import ModelStore; "
        f"Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL); root = Path({str(tmp_path)!r}); "
        "ModelStore(root).publish(root / 'cats' / '.building', 'cats', 2, held_back='worse')"
    )
    assert subprocess.run([sys.executable, "-c", killed], check=False).returncode == -signal.SIGKILL
    (tmp_path / "cats" / ".building").rmdir()
    assert entries(store) == ["1", "2.held"]
    assert (store.names(), store.versions("cats"), store.serving_order("cats", None)) == (["cats"], [1], [1])
    publish(store, 2)
    assert entries(store) == ["1", "2"]
    assert store.serving_order("cats", None) == [2, 1]


def test_a_failed_publish_leaves_no_marker_and_does_not_touch_the_existing_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ModelStore(tmp_path)
    publish(store, 1)
    with pytest.raises(FileExistsError):
        publish(store, 1, held_back="worse")
    assert store.serving_order("cats", None) == [1]
    (tmp_path / "cats" / ".building" / "manifest.json").unlink()
    (tmp_path / "cats" / ".building").rmdir()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        publish(store, 2, held_back="worse")
    assert entries(store) == [".building", "1"]


def test_a_promoted_version_is_served_and_a_pin_stays(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    publish(store, 1)
    publish(store, 2, held_back="worse")
    store.pin("cats", 1)
    store.promote("cats", 2)
    assert store.serving_order("cats", None) == [2, 1]
    assert store.pinned("cats") == 1
    with pytest.raises(StoreConflict, match="Version 2 of cats is not held back"):
        store.promote("cats", 2)
    with pytest.raises(BundleNotFound, match="no version 3; it has: 1, 2"):
        store.promote("cats", 3)


def test_a_removed_version_goes_with_its_marker(tmp_path: Path) -> None:
    store = ModelStore(tmp_path)
    publish(store, 1)
    publish(store, 2, held_back="worse")
    store.remove("cats", 2)
    assert entries(store) == ["1"]
    with pytest.raises(BundleNotFound, match="no version 2; it has: 1"):
        store.remove("cats", 2)


@pytest.mark.parametrize("file", [".held", "0.held", "x.held", "2.held-", "2.heldx"])
def test_files_that_are_no_marker_hold_nothing_back(tmp_path: Path, file: str) -> None:
    store = store_with(tmp_path, "cats/1", "cats/2")
    (tmp_path / "cats" / file).touch()
    assert store.serving_order("cats", None) == [2, 1]
