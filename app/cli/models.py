"""The commands `python -m app models`: list, show, verify, pin, unpin, rollback, promote, remove."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from app.cli.errors import one_line_errors
from app.cli.options import ModelStoreOption
from app.cli.output import print_table
from app.engines.registry import EngineChoice
from app.errors import BundleError, BundleNotFound, ImageclassError, StoreNotWritable
from app.settings import Settings
from app.system.wording import count_of

if TYPE_CHECKING:
    from app.contract.store import ModelStore

models_cli = typer.Typer(help="Look at what the model store holds, and say what is to be served.", no_args_is_help=True)

ModelArgument = Annotated[str, typer.Argument(help="The model.", show_default=False)]
VersionArgument = Annotated[int, typer.Argument(min=1, help="Which version.", show_default=False)]
VersionOption = Annotated[
    int | None, typer.Option(help="Which version; the newest, held back or not, if none is named.")
]
EngineOption = Annotated[EngineChoice, typer.Option(help="What to run the golden pictures on.")]


@models_cli.command("list")
def models_list(model_store: ModelStoreOption = None) -> None:
    """List every model and version of the store."""
    from app.contract.bundle import read_manifest

    table = Table("model", "version", "labels", "test accuracy", "macro recall", "created", "state")
    with one_line_errors():
        store = _store(model_store)
        for name in store.names():
            pinned, held_back = _pinned(store, name), store.held_back(name)
            for version in store.versions(name):
                try:
                    manifest = read_manifest(store.path(name, version))
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
                    ", ".join(["pinned"] * (version == pinned) + ["held back"] * (version in held_back)),
                )
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
    """Have one version served, whatever newer ones there are. It is checked first, as the service does at load."""
    with one_line_errors():
        _pin(_store(model_store), name, version)


@models_cli.command("unpin")
def models_unpin(name: ModelArgument, model_store: ModelStoreOption = None) -> None:
    """Have the newest version served again that is not held back."""
    with one_line_errors():
        store = _store(model_store)
        store.newest(name)
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
    """Pin the version below the one that is to be served now: the nearest that passes and is not held back."""
    with one_line_errors():
        store = _store(model_store)
        store.newest(name)
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


@models_cli.command("promote")
def models_promote(name: ModelArgument, version: VersionArgument, model_store: ModelStoreOption = None) -> None:
    """Hold a version back no longer, which `fit` does to one that is worse than the live one. A pin stays."""
    with one_line_errors():
        store = _store(model_store)
        with _plain_write_errors(store, name):
            store.promote(name, version)
        pinned = _pinned(store, name)
        served = store.serving_order(name, pinned)[0]
    if served == version:
        follows = "A running service follows within seconds, if it passes its check."
    elif served == pinned:
        follows = f"Version {served} is pinned, and stays served. To unpin it: {store.command('unpin', name)}"
    else:
        follows = f"Version {served} is newer, and stays served."
    typer.echo(f"{name} version {version} is not held back any more. {follows}")


@models_cli.command("remove")
def models_remove(name: ModelArgument, version: VersionArgument, model_store: ModelStoreOption = None) -> None:
    """Delete a version that is not live."""
    from app.contract.live import check_removable

    with one_line_errors():
        store = _store(model_store)
        check_removable(store, name, version)
        with _plain_write_errors(store, name):
            store.remove(name, version)
    typer.echo(f"{name} version {version} is removed.")


def _pin(store: "ModelStore", name: str, version: int) -> None:
    from app.engines.loading import load_model

    store.check_has(name, version)
    load_model(store.path(name, version)).engine.close()
    with _plain_write_errors(store, name):
        store.pin(name, version)
    typer.echo(f"{name} is pinned to version {version}. A running service follows within seconds.")


def _is_sound(store: "ModelStore", name: str, version: int) -> bool:
    from app.engines.loading import load_model

    try:
        load_model(store.path(name, version)).engine.close()
    except BundleError as exc:
        typer.echo(f"passed over: {exc}", err=True)
        return False
    return True


@contextmanager
def _plain_write_errors(store: "ModelStore", name: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        folder = store.root / name
        raise StoreNotWritable(
            f"{folder} cannot be written: {exc.strerror}. Run this as its owner, and where it is mounted for writing."
        ) from exc


def _pinned(store: "ModelStore", name: str) -> int | None:
    """Return the pinned version; what is wrong with the pin is said, and no reason to fail."""
    try:
        return store.pinned(name)
    except BundleNotFound as exc:
        typer.echo(f"error: {exc}", err=True)
        return None


def _state_of(store: "ModelStore", name: str, version: int) -> str:
    pinned = _pinned(store, name)
    state = "No version is pinned." if pinned is None else f"Version {pinned} is pinned."
    if pinned == version:
        state = "It is pinned."
    return f"{state} It is held back." if version in store.held_back(name) else state


def _store(given: Path | None) -> "ModelStore":
    from app.contract.store import ModelStore

    return ModelStore(given if given is not None else Settings.load().model_store)


def _bundle_path(store: "ModelStore", name: str, version: int | None) -> Path:
    return store.newest(name) if version is None else store.path(name, version)
