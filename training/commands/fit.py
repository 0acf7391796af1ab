"""The command `python -m training fit`."""

from typing import TYPE_CHECKING, Any

import typer

from app.cli.options import with_parameters
from app.contract.location import BucketAddress, Location, parse_location
from app.contract.store import ModelStore
from app.engines.tensorflow import import_tensorflow
from app.system.home import expanded
from app.system.invocation import INTERRUPTED, command_line, this_command
from app.system.wording import count_of
from training.choice import Choice, choose_preset
from training.commands.bucket import push_published, working_store
from training.commands.declared_options import fit_parameters
from training.commands.errors import plain_endings
from training.data.sources import open_data
from training.options import FitOptions, read_fit_options, read_unless_of_preset
from training.progress import Reporter

if TYPE_CHECKING:
    from app.engines.loading import LoadedModel


@with_parameters(fit_parameters())
def fit(**given: Any) -> None:
    """Train a classifier and publish it as a new version, held back if it is worse than the live one.

    Options that are not given follow the preset.
    """
    given = {option: expanded(value) for option, value in given.items()}
    reporter = Reporter()
    name = given["name"]
    with plain_endings():
        location = parse_location(given["model_store"])
        if isinstance(location, BucketAddress):
            store = working_store(location, name, against=given["against"], keep=given["keep"])
        else:
            store = ModelStore(location)
        given["model_store"] = store.root
        try:
            options = read_fit_options(given if given["preset"] else _with_chosen_preset(given, reporter))
            from training.pipeline import train_and_publish  # TensorFlow

            published = train_and_publish(options, reporter, again=this_command("--resume"))
        except KeyboardInterrupt:
            versions = ", ".join(str(version) for version in store.versions(name)) or "none"
            typer.echo(
                f"\nStopped. Nothing was published; versions of {name} in {store.root}: {versions}.",
                err=True,
            )
            raise typer.Exit(INTERRUPTED) from None
        if isinstance(location, BucketAddress):
            push_published(location, store, published.bundle, reporter)
    say_published(published, reporter, store=store, location=location)


def _with_chosen_preset(given: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    choice = choose(read_unless_of_preset(given), reporter)
    return {
        **given,
        "preset": choice.preset,
        "effort": None,
        "epochs": choice.epochs if given["epochs"] is None else given["epochs"],
    }


def choose(options: FitOptions, reporter: Reporter) -> Choice:
    """Choose a preset for the data, and say which and why. Raises DataError."""
    import_tensorflow()  # says that it is missing before anything is chosen
    choice = choose_preset(open_data(options.data), options.effort, size=options.size, colour=options.colour)
    for line in choice.lines:
        reporter.say(line)
    return choice


def say_published(published: "LoadedModel", reporter: Reporter, *, store: ModelStore, location: Location) -> None:
    """Say where the new version is, how good it is, and how to serve or promote it.

    `location` is the store that the user named; `store` the folder that has the version.
    """
    manifest = published.bundle.manifest
    name, named = manifest.name, str(location)
    reporter.say(f"proven on {published.engine.name}: {count_of(published.proof.pictures, 'golden picture')}")
    split, which = ("test", "test") if "test.accuracy" in manifest.metrics else ("train", "training")
    if (recall := manifest.metrics.get(f"{split}.macro_recall")) is not None:
        reporter.say(f"{which} macro recall, in which each class counts alike: {recall:.2%}")
    typer.echo(f"{published.bundle.path}: {which} accuracy {manifest.metrics[f'{split}.accuracy']:.2%}")
    held_back = store.why_held_back(name, manifest.version)
    if held_back is None:
        reporter.say(f"serve it: {command_line('app', 'serve', '--model-store', named, '--model', name)}")
    else:
        promote = command_line("app", "models", "promote", name, str(manifest.version), "--model-store", named)
        preview = command_line("app", "models", "preview", name, str(manifest.version), "--model-store", named)
        reporter.say(
            f"published, but held back: {held_back}. To look at both versions on the service's page: {preview}. "
            f"To have it served all the same: {promote}"
        )
