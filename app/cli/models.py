"""The commands `python -m app models`, which show and change what a model store holds and what is served of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from app.cli.command_line import PLAIN, Group
from app.cli.errors import one_line_errors
from app.cli.options import ModelStoreOption
from app.cli.output import log_errors_only, print_table
from app.contract.location import BucketAddress, needs_a_folder, parse_location
from app.engines.registry import EngineChoice
from app.errors import BundleError, BundleNotFound, ImageclassError, InvalidSetting, StoreConflict, StoreNotWritable
from app.settings import Settings
from app.system.wording import count_of

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from app.contract.bundle import Manifest
    from app.contract.store import ModelStore
    from app.object_storage.remote_models import RemoteModels

    Store = ModelStore | RemoteModels

models_cli = typer.Typer(cls=Group, help="List, check, pin, push and remove versions of the model store.", **PLAIN)

ModelArgument = Annotated[str, typer.Argument(help="Name of the model.", show_default=False)]
VersionArgument = Annotated[int, typer.Argument(min=1, help="Version.", show_default=False)]
VersionOption = Annotated[int | None, typer.Option(help="Version. (default: the newest, held back or not)")]
EngineOption = Annotated[EngineChoice, typer.Option(help="Engine that runs the golden pictures.")]


@models_cli.command("list")
def models_list(model_store: ModelStoreOption = None) -> None:
    """List every model and version of the store."""
    table = Table("model", "version", "labels", "test accuracy", "macro recall", "created", "state")
    with one_line_errors():
        store = _store(model_store)
        for name in store.names():
            marks: dict[str, set[int | None] | set[int]] = {
                "pinned": {_marked(store.pinned, name)},
                "held back": store.held_back(name),
                "preview": {_marked(store.preview, name)},
            }
            for version in store.versions(name):
                try:
                    manifest = _manifest(store, name, version)
                except ImageclassError as exc:
                    typer.echo(f"error: {exc}", err=True)
                    continue
                figures = [manifest.metrics.get(f"test.{figure}") for figure in ("accuracy", "macro_recall")]
                table.add_row(
                    name,
                    str(version),
                    str(len(manifest.labels)),
                    *("" if figure is None else f"{figure:.2%}" for figure in figures),
                    f"{manifest.created_at:%Y-%m-%d %H:%M}",
                    ", ".join(state for state, versions in marks.items() if version in versions),
                )
        for name, version in [] if _is_folder(store) else store.unfinished():
            table.add_row(name, str(version), "", "", "", "", "unfinished push")
    print_table(table)


@models_cli.command("show")
def models_show(name: ModelArgument, version: VersionOption = None, model_store: ModelStoreOption = None) -> None:
    """Print a model's card."""
    from app.contract.bundle import open_bundle

    with one_line_errors():
        store = _store(model_store)
        bundle = open_bundle(_bundle_path(store, name, version))
        typer.echo(bundle.card())
        typer.echo(_state_of(store, name, bundle.version), err=True)


@models_cli.command("verify")
def models_verify(
    name: ModelArgument,
    version: VersionOption = None,
    engine: EngineOption = "auto",
    model_store: ModelStoreOption = None,
) -> None:
    """Check a bundle as the service does at load: digests, signature, golden pictures."""
    from app.engines.loading import load_model

    with one_line_errors():
        store = _store(model_store)
        loaded = load_model(_bundle_path(store, name, version), engine=engine)
        typer.echo(
            f"{loaded.bundle.name} version {loaded.bundle.version} is sound: "
            f"{count_of(loaded.proof.pictures, 'golden picture')} on {loaded.engine.name}, "
            f"probabilities within {loaded.proof.max_probability_difference:.1e} of "
            f"training's. {_state_of(store, name, loaded.bundle.version)}"
        )


@models_cli.command("pin")
def models_pin(
    name: ModelArgument,
    version: VersionArgument,
    model_store: ModelStoreOption = None,
) -> None:
    """Serve one version, even if there are newer ones. It is checked first, as the service does at load."""
    with one_line_errors():
        _pin(_store(model_store), name, version)


@models_cli.command("unpin")
def models_unpin(name: ModelArgument, model_store: ModelStoreOption = None) -> None:
    """Remove the pin, so that the newest version that is not held back is served again."""
    with one_line_errors():
        store = _store(model_store)
        store.check_has(name)
        with _plain_write_errors(store, name):
            store.unpin(name)
        order = store.serving_order(name, None)
    served = (
        f"the newest version that passes its check is served, which is {order[0]} if it does."
        if order
        else "every version is held back, so a start serves none. Promote one: "
        + store.command("promote", name, "VERSION")
    )
    typer.echo(f"{name} is not pinned: {served}")


@models_cli.command("rollback")
def models_rollback(name: ModelArgument, model_store: ModelStoreOption = None) -> None:
    """Pin the next lower version that passes its check and is not held back."""
    with one_line_errors():
        store = _store(model_store)
        store.check_has(name)
        served, order = store.pinned(name), store.serving_order(name, None)
        if served is None:
            served = next((version for version in order if _is_sound(store, name, version)), 0)
        below = [version for version in order if version < served]
        target = next((version for version in below if _is_sound(store, name, version)), None)
        if target is None:
            what = f"version {served}" if served else "any, as none passes its check"
            raise BundleNotFound(
                f"{name} has no version below {what} that passes its check, so there is none to roll back to."
            )
        _pin(store, name, target)


@models_cli.command("preview")
def models_preview(
    name: ModelArgument,
    version: Annotated[int | None, typer.Argument(min=1, help="Version.", show_default=False)] = None,
    end: Annotated[bool, typer.Option("--end", help="End the preview instead.")] = False,
    model_store: ModelStoreOption = None,
) -> None:
    """Serve a version beside the live one, to requests that name it. It is checked first, as the service does at
    load."""
    from app.engines.loading import load_model

    with one_line_errors():
        if (version is None) != end:
            raise InvalidSetting("Give either the version to preview, or --end.")
        store = _store(model_store)
        store.check_has(name, version)
        if version is not None:
            if version in store.serving_order(name, _marked(store.pinned, name))[:1]:
                raise StoreConflict(f"Version {version} of {name} is the one that is served. Preview another one.")
            load_model(store.path(name, version)).engine.close()
        with _plain_write_errors(store, name):
            if version is None:
                store.end_preview(name)
            else:
                store.begin_preview(name, version)
    if version is None:
        typer.echo(f"{name} has no version in preview. A running service follows within seconds.")
        return
    typer.echo(
        f"{name} version {version} is in preview. Within seconds, a running service answers requests with "
        f"model={name}&version={version}, and its page shows both versions side by side."
    )


@models_cli.command("promote")
def models_promote(name: ModelArgument, version: VersionArgument, model_store: ModelStoreOption = None) -> None:
    """Release a version that `fit` has held back because it is worse than the live one. A pin stays."""
    with one_line_errors():
        store = _store(model_store)
        with _plain_write_errors(store, name):
            store.promote(name, version)
        pinned = _marked(store.pinned, name)
        served = store.serving_order(name, pinned)[0]
    if served == version:
        follows = "A running service follows within seconds, if it passes its check."
    elif served == pinned:
        follows = f"Version {served} is pinned, and stays served. To unpin it: {store.command('unpin', name)}"
    else:
        follows = f"Version {served} is newer, and stays served."
    typer.echo(f"{name} version {version} is no longer held back. {follows}")


@models_cli.command("remove")
def models_remove(name: ModelArgument, version: VersionArgument, model_store: ModelStoreOption = None) -> None:
    """Delete a version that is not live."""
    from app.contract.live import check_removable

    with one_line_errors():
        store = _store(model_store)
        if _is_folder(store):
            check_removable(store, name, version)
        with _plain_write_errors(store, name):
            store.remove(name, version)
    typer.echo(f"{name} version {version} is removed.")


@models_cli.command("push")
def models_push(
    name: ModelArgument,
    to: Annotated[str, typer.Option(help="The bucket: s3://, gs:// or az://BUCKET/PREFIX.", show_default=False)],
    version: VersionOption = None,
    model_store: ModelStoreOption = None,
) -> None:
    """Publish a version in a bucket: first its files, then its manifest. A version that is held back stays held
    back."""
    from app.contract.bundle import open_bundle
    from app.object_storage.store import BucketStore

    with one_line_errors():
        address, store = _bucket(to, "--to"), _store(model_store)
        bundle = open_bundle(_bundle_path(store, name, version))
        held_back = store.why_held_back(name, bundle.version)
        is_new = BucketStore(address).push(bundle, held_back=held_back)
    typer.echo(
        f"{name} version {bundle.version} is {'published' if is_new else 'there already, the same'} in {address.url}. "
        f"{'' if held_back is None else f'It is held back: {held_back} '}"
        f"To serve it alone: {_pinning(address, bundle.path)}"
    )


@models_cli.command("pull")
def models_pull(
    name: ModelArgument,
    source: Annotated[
        str, typer.Option("--from", help="The bucket: s3://, gs:// or az://BUCKET/PREFIX.", show_default=False)
    ],
    version: VersionOption = None,
    model_store: ModelStoreOption = None,
) -> None:
    """Copy a version from a bucket into a folder and check every file. A version that is held back stays held back."""
    from app.object_storage.pull import pull
    from app.object_storage.store import BucketStore

    with one_line_errors():
        remote, store = BucketStore(_bucket(source, "--from")), _store(model_store)
        if not _is_folder(store):
            raise InvalidSetting("models pull copies into a folder. Name one with --model-store.")
        contents = remote.contents()
        remote.check_has(contents, name, version)
        version = version or contents.versions(name)[-1]
        if version in store.versions(name):
            raise StoreConflict(
                f"{store.path(name, version)} exists already. Remove it first, or pull another version."
            )
        path = pull(remote, contents, name, version, store)
    typer.echo(f"{path} is complete: every file is the one that was pushed.")


def _pin(store: "Store", name: str, version: int) -> None:
    from app.engines.loading import load_model

    store.check_has(name, version)
    load_model(store.path(name, version)).engine.close()
    with _plain_write_errors(store, name):
        store.pin(name, version)
    typer.echo(f"{name} is pinned to version {version}. A running service follows within seconds.")


def _is_sound(store: "Store", name: str, version: int) -> bool:
    from app.engines.loading import load_model

    try:
        load_model(store.path(name, version)).engine.close()
    except BundleError as exc:
        typer.echo(f"passed over: {exc}", err=True)
        return False
    return True


@contextmanager
def _plain_write_errors(store: "Store", name: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise StoreNotWritable(
            f"{store.root}/{name} cannot be written: {exc.strerror}. Run this as its owner, on a machine on which it "
            "is mounted writable."
        ) from exc


def _marked(read: Callable[[str], int | None], name: str) -> int | None:
    """Return the version that a mark names; report an invalid mark without failing."""
    try:
        return read(name)
    except BundleNotFound as exc:
        typer.echo(f"error: {exc}", err=True)
        return None


def _state_of(store: "Store", name: str, version: int) -> str:
    pinned = _marked(store.pinned, name)
    state = "No version is pinned." if pinned is None else f"Version {pinned} is pinned."
    if pinned == version:
        state = "It is pinned."
    if version in store.held_back(name):
        state += " It is held back."
    return (
        state
        if _is_folder(store)
        else f"{state} To serve it alone: {_pinning(store.address, store.path(name, version))}"
    )


def _store(given: str | None) -> "Store":
    """Return the store that the option, else the setting, names: a folder, or the content of a bucket."""
    from app.contract.store import ModelStore
    from app.object_storage.mirror import mirror_at
    from app.object_storage.remote_models import RemoteModels

    settings = Settings.load(**({} if given is None else {"model_store": given}))
    location = settings.model_store
    if isinstance(location, BucketAddress):  # the whole bucket, even if the address names one version by its digest
        location = BucketAddress(location.url)
    mirror = mirror_at(location, settings.model_cache, max_bytes=settings.model_cache_bytes)
    if mirror is None:
        return ModelStore(needs_a_folder(location))
    log_errors_only()
    return RemoteModels(mirror)


def _is_folder(store: "Store") -> "TypeIs[ModelStore]":
    from app.contract.store import ModelStore

    return isinstance(store, ModelStore)


def _bucket(address: str, option: str) -> BucketAddress:
    location = parse_location(address)
    if isinstance(location, BucketAddress):
        return location
    raise InvalidSetting(f"{option} {address} is a folder. Name a bucket: s3://, gs:// or az://BUCKET/PREFIX.")


def _manifest(store: "Store", name: str, version: int) -> "Manifest":
    from app.contract.bundle import read_manifest

    return read_manifest(store.path(name, version)) if _is_folder(store) else store.manifest(name, version)


def _bundle_path(store: "Store", name: str, version: int | None) -> Path:
    return store.newest(name) if version is None else store.path(name, version)


def _pinning(address: BucketAddress, bundle: Path) -> str:
    """Return the setting that serves only this version, whatever else is written into the bucket."""
    from app.object_storage.store import manifest_digest

    return f"IMAGECLASS_MODEL_STORE={BucketAddress(address.url, manifest_digest(bundle))}"
