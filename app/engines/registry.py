"""List the engines that exist: settings, commands, schemas and manifests take their names from here.

To add an engine, write its module beside this one and its line in `ENGINES`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal


@dataclass(frozen=True)
class Registration:
    """`factory` is the "module:function" of an `EngineFactory`, imported only when a model is opened on this engine;
    `libraries` are the distributions whose versions a manifest records."""

    factory: str
    libraries: tuple[str, ...]


ENGINES = {
    # The fastest, and the only one that the service needs.
    "openvino": Registration("app.engines.openvino:open_openvino", ("openvino",)),
    # The reference: training's own, and the source of golden probabilities.
    "tensorflow": Registration("app.engines.tensorflow:open_tensorflow", ("tensorflow", "keras")),
}
"""By name, in the order in which the choice "auto" tries them."""

REFERENCE = "tensorflow"

if TYPE_CHECKING:  # type checkers cannot read names from a dictionary; pydantic and Typer can
    EngineName = str
    EngineChoice = str
else:
    EngineName = Literal[*ENGINES]
    EngineChoice = Literal["auto", *ENGINES]
