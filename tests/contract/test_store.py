"""Which models and versions a folder holds."""

import os
from pathlib import Path

import pytest

from app.contract.store import ModelStore, is_model_name
from app.errors import BundleNotFound


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


def test_what_is_not_there_cannot_be_pinned(tmp_path: Path) -> None:
    (tmp_path / "cats" / "1").mkdir(parents=True)
    with pytest.raises(BundleNotFound, match="no version 7; it has: 1"):
        ModelStore(tmp_path).pin("cats", 7)


def test_a_pin_that_names_no_version_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "cats" / "1").mkdir(parents=True)
    (tmp_path / "cats" / "pinned").write_text("newest")
    with pytest.raises(BundleNotFound, match="models pin cats VERSION"):
        ModelStore(tmp_path).pinned("cats")
