"""Which version is live by what the store holds, and which ones may be removed."""

import json
import shutil
from pathlib import Path

import pytest

from app.contract.live import check_removable, live_bundle, removable
from app.contract.store import ModelStore
from app.errors import BundleError, BundleNotFound, StoreConflict


@pytest.fixture
def store(copy_of_store: Path) -> ModelStore:
    """A store with the versions 1 to 4, of which 3 is damaged and 4 held back."""
    for version in (2, 3, 4):
        folder = copy_of_store / "digits" / str(version)
        shutil.copytree(copy_of_store / "digits" / "1", folder)
        manifest = json.loads((folder / "manifest.json").read_bytes())
        (folder / "manifest.json").write_text(json.dumps({**manifest, "version": version}))
    damage(copy_of_store, 3)
    (copy_of_store / "digits" / "4.held").touch()
    return ModelStore(copy_of_store)


def damage(root: Path, version: int) -> None:
    (root / "digits" / str(version) / "saved_model.pb").write_bytes(b"")


def live(store: ModelStore) -> int | None:
    bundle = live_bundle(store, "digits")
    return None if bundle is None else bundle.version


def test_the_newest_that_is_whole_and_not_held_back_is_live(store: ModelStore) -> None:
    assert live(store) == 2
    assert removable(store, "digits") == [1, 3, 4]


def test_a_pinned_version_is_live_even_if_it_is_held_back(store: ModelStore) -> None:
    store.pin("digits", 4)
    assert live(store) == 4
    assert removable(store, "digits") == [1, 2, 3]


def test_without_a_version_that_could_be_served_none_is_live(store: ModelStore) -> None:
    for version in (1, 2, 3):
        (store.root / "digits" / f"{version}.held").touch()
    assert live(store) is None
    assert live_bundle(store, "cats") is None
    assert removable(store, "digits") == [1, 2, 3, 4]


def test_where_all_are_damaged_any_may_be_removed(store: ModelStore) -> None:
    damage(store.root, 1)
    damage(store.root, 2)
    with pytest.raises(BundleError, match="saved_model"):
        live(store)
    assert removable(store, "digits") == [1, 2, 3, 4]


def test_a_pin_on_a_version_that_is_missing_protects_the_one_that_a_start_serves(store: ModelStore) -> None:
    (store.root / "digits" / "pinned").write_text("7")
    assert removable(store, "digits") == [1, 3, 4]
    with pytest.raises(StoreConflict, match="Version 2 of digits is live"):
        check_removable(store, "digits", 2)


def test_what_is_not_there_is_not_removable(store: ModelStore) -> None:
    with pytest.raises(BundleNotFound, match="no version 9; it has: 1, 2, 3, 4"):
        check_removable(store, "digits", 9)
