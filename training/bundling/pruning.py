"""Remove old versions from the store: never the pinned one, nor the newest."""

import tempfile
from pathlib import Path

from app.contract.store import ModelStore
from app.errors import BundleNotFound
from training.progress import Reporter


def prune(store: ModelStore, name: str, *, keep: int, reporter: Reporter) -> None:
    """Keep only the newest `keep` versions, at least one, and the pinned one; report removals and failures.

    It never raises: the new version is already published.
    """
    try:
        pinned = store.pinned(name)
        old = [version for version in store.versions(name)[: -max(1, keep)] if version != pinned]
    except BundleNotFound as exc:
        reporter.say(f"no old version was removed: {exc}")
        return
    for version in old:
        path = store.path(name, version)
        try:
            _remove(path)
        except OSError as exc:
            reporter.say(f"{path} could not be removed: {exc.strerror}")
        else:
            reporter.say(f"removed {path}")


def _remove(path: Path) -> None:
    """Hide a version from readers by a rename, then delete it."""
    with tempfile.TemporaryDirectory(prefix=".removing-", dir=path.parent) as hidden:
        path.rename(Path(hidden) / path.name)
