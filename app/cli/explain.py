"""The command `python -m app explain`: one picture with the heat map of its label drawn over it."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.errors import one_line_errors
from app.cli.options import ModelStoreOption
from app.cli.output import log_errors_only
from app.errors import OutputNotWritable, UnusableSource
from app.settings import Settings
from app.system.home import expanded

if TYPE_CHECKING:
    from app.serving.explanation import Explanation


def explain(
    picture: Annotated[Path, typer.Argument(help="Picture to explain.", show_default=False)],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="PNG file to write: the picture with the heat map over it.")
    ] = Path("why.png"),
    label: Annotated[
        str | None, typer.Option(help="Label to explain. (default: the most probable one)", show_default=False)
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model. [IMAGECLASS_MODEL]", show_default=False)] = None,
    model_store: ModelStoreOption = None,
) -> None:
    """Classify a picture, and draw a heat map over it: red marks the places that contribute most to the label, blue
    least."""
    picture, out = expanded(picture), expanded(out)
    given = {"model": model, "model_store": model_store}
    log_errors_only()
    with one_line_errors():
        settings = Settings.load(**{name: value for name, value in given.items() if value is not None})
        try:
            data = picture.read_bytes()
        except OSError as exc:
            raise UnusableSource(f"{picture} cannot be read: {exc.strerror}.") from exc
        found, explained = asyncio.run(_explained(data, settings, label))
        try:
            out.write_bytes(found.png or b"")
        except OSError as exc:
            raise OutputNotWritable(f"{out} cannot be written: {exc.strerror}.") from exc
    masks = f", {found.masks} masks" if found.masks else ""
    typer.echo(f"{explained} {found.probabilities[found.label_index]:.1%}, explained by {found.method}{masks}: {out}")


async def _explained(data: bytes, settings: Settings, label: str | None) -> "tuple[Explanation, str]":
    """Return the explanation, and the label that it is of. Raises an ImageclassError."""
    from app.main import load_from, open_catalogue  # the engines and the rest: not for other commands
    from app.metrics import Metrics
    from app.serving.batcher import row_for
    from app.serving.explanation import ExplanationOptions

    async with open_catalogue(settings, load_from(settings, only=settings.model), Metrics()) as catalogue:
        classifier = catalogue.get(settings.model)
        output = classifier.explained_by
        options = ExplanationOptions(label, drawn=True)
        found: Explanation = await row_for(
            lambda reply: classifier.explain(data, reply, options=options, output=output),
            classifier.withdraw,
        )
        return found, classifier.manifest.labels[found.label_index]
