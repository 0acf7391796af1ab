"""`fit` with a bucket as its store: it trains in a folder of this machine, and pushes the new version at the end."""

from app.contract.bundle import Bundle
from app.contract.location import BucketAddress
from app.contract.store import ModelStore
from app.errors import ObjectStoreError, StoreConflict
from app.object_storage.mirror import Mirror, folder_at
from app.object_storage.store import BucketStore, manifest_digest
from app.system.cache_folder import cache_folder
from app.system.invocation import command_line
from training.errors import OptionError, PublishError
from training.progress import Reporter


def working_store(address: BucketAddress, name: str, *, against: str | None, keep: int | None) -> ModelStore:
    """Return a folder of this machine in which to train, brought in line with the bucket for the model `name`.

    It has the bucket's newest version, whose number the new one follows; the live one; and that of --against. Raises an
    ImageclassError.
    """
    if keep is not None:
        remove = command_line("app", "models", "remove", name, "VERSION", "--model-store", address.url)
        raise OptionError(f"--keep works on folders only. Remove versions of a bucket by {remove}.")
    if address.digest is not None:
        raise OptionError(f"--model-store {address} names one version. Leave out its digest to publish another.")
    store = folder_at(address, cache_folder("training"))
    mirror = Mirror(address, store, max_bytes=1 << 60)
    mirror.copy_for_training(name, {int(against)} if against and against.isdecimal() else set())
    return store


def push_published(address: BucketAddress, store: ModelStore, bundle: Bundle, reporter: Reporter) -> None:
    """Push a version that was published in the folder. Raises PublishError, with what to do then."""
    held_back = store.why_held_back(bundle.name, bundle.version)
    try:
        BucketStore(address).push(bundle, held_back=held_back)
    except (ObjectStoreError, StoreConflict) as exc:
        words = ["push", bundle.name, "--version", str(bundle.version), "--to", address.url]
        again = command_line("app", "models", *words, "--model-store", str(store.root))
        raise PublishError(f"{exc} The bundle is in {bundle.path}. Once that is fixed, run: {again}") from exc
    alone = BucketAddress(address.url, manifest_digest(bundle.path))
    reporter.say(f"pushed to {address.url}; to serve this version alone: {alone}")
