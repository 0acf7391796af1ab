"""Find the live version of a model by the content of its store, and the versions that may be removed."""

from app.contract.bundle import Bundle, open_bundle
from app.contract.store import ModelStore
from app.errors import BundleError, StoreConflict


def live_bundle(store: ModelStore, name: str) -> Bundle | None:
    """Return the pinned version, else the newest that is whole and not held back; None if there is none.

    Raises a BundleError if the pinned one, or every one of the others, is damaged.
    """
    pinned = store.pinned(name)
    return _newest_whole(store, name) if pinned is None else open_bundle(store.path(name, pinned))


def removable(store: ModelStore, name: str) -> list[int]:
    """Return the versions that may be removed, in ascending order: all but the live one.

    A pin on a missing version is ignored, as at the start of a service. Raises BundleNotFound if the pin names no
    version, or the model's folder cannot be read.
    """
    versions, live = store.versions(name), store.pinned(name)
    if live not in versions:
        try:
            newest = _newest_whole(store, name)
        except BundleError:  # none is whole
            newest = None
        live = None if newest is None else newest.version
    return [version for version in versions if version != live]


def check_removable(store: ModelStore, name: str, version: int) -> None:
    """Raise StoreConflict if the version is live, BundleNotFound if it does not exist."""
    store.check_has(name, version)
    if version not in removable(store, name):
        raise StoreConflict(
            f"Version {version} of {name} is live, so it is not removed. Serve another version first: "
            + store.command("pin", name, "VERSION")
        )


def _newest_whole(store: ModelStore, name: str) -> Bundle | None:
    damaged = None
    for version in store.serving_order(name, None):
        try:
            return open_bundle(store.path(name, version))
        except BundleError as exc:
            damaged = damaged or exc
    if damaged is not None:
        raise damaged
    return None
