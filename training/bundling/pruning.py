"""Remove old versions from the store: never the pinned one, nor the newest."""

import tempfile
from pathlib import Path

from app.contract.store import ModelStore
from app.errors import BundleNotFound
from training.progress import Reporter


def prune(store: ModelStore, name: str, *, keep: int, reporter: Reporter) -> None:
    """Remove all versions but the newest `keep`, at least one, and the pinned one; say what went and what would not.

    It never fails: what was published is published.
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
    """Take a version out of readers' sight at once, then delete it."""
    with tempfile.TemporaryDirectory(prefix=".removing-", dir=path.parent) as hidden:
        path.rename(Path(hidden) / path.name)
