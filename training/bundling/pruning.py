"""Remove old versions from the store: never the live one, nor the newest."""

from app.contract.live import removable
from app.contract.store import ModelStore
from app.errors import BundleNotFound
from training.progress import Reporter


def prune(store: ModelStore, name: str, *, keep: int, reporter: Reporter) -> None:
    """Keep only the newest `keep` versions, at least one, and the live one; report removals and failures.

    It never raises: the new version is already published.
    """
    try:
        newest = store.versions(name)[-max(1, keep) :]
        old = [version for version in removable(store, name) if version not in newest]
    except BundleNotFound as exc:
        reporter.say(f"no old version was removed: {exc}")
        return
    for version in old:
        path = store.path(name, version)
        try:
            store.remove(name, version)
        except BundleNotFound:
            continue  # another process has removed it
        except OSError as exc:
            reporter.say(f"{path} could not be removed: {exc.strerror}")
        else:
            reporter.say(f"removed {path}")
