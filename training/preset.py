"""What a preset is: preprocessing, network and recipe, all of it data."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from app.contract.preprocessing import PreprocessingSpec
from training.layers import Layer

Loss = Literal["crossentropy", "mse"]
OptimizerName = Literal["sgd", "momentum", "rmsprop", "adam", "adamw"]
Schedule = Literal["constant", "one_cycle"]
BatchSize = int | Literal["full"]


@dataclass(frozen=True)
class Augmentation:
    """Random changes to training pictures, each drawn uniformly from ± its value; 0 leaves that change out.

    Geometry in degrees, and in fractions of the side; what comes into view is black. `paper` is the share of pictures
    that get a grey, unevenly lit ground, weaker strokes and sensor noise, as a photographed sheet has.
    """

    rotation_degrees: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    shear_degrees: float = 0.0
    paper: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. `batch_size` "full" is plain gradient descent: one step an epoch over all pictures.

    "constant" keeps `learning_rate`; "one_cycle" climbs to it over the first fifth of the steps and falls to nothing
    at the last (Smith 2018, arXiv:1803.09820, with a cosine descent).
    """

    loss: Loss = "crossentropy"
    optimizer: OptimizerName = "adam"
    learning_rate: float = 0.001
    schedule: Schedule = "constant"
    batch_size: BatchSize = 32
    epochs: int = 10
    validation: float = 0.0
    augmentation: Augmentation | None = None


@dataclass(frozen=True)
class Preset:
    """A named starting point; every part of its recipe can be replaced on the command line."""

    name: str
    summary: str
    preprocessing: PreprocessingSpec
    layers: tuple[Layer, ...]
    recipe: Recipe

    def describe_layers(self) -> list[dict[str, Any]]:
        """Return the layers in JSON's types, for the manifest."""
        return [{"layer": type(layer).__name__, **asdict(layer)} for layer in self.layers]
