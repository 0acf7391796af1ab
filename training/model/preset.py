"""Define presets: preprocessing, network and recipe as data."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from app.contract.preprocessing import PreprocessingSpec
from training.data.split import MAX_FRACTION
from training.declared import ALWAYS, Option, reads
from training.errors import OptionError
from training.model.layers import Backbone, Layer

Loss = Literal["crossentropy", "mse"]
OptimizerName = Literal["sgd", "momentum", "rmsprop", "adam", "adamw"]
Schedule = Literal["constant", "one_cycle", "cosine"]
ClassWeights = Literal["none", "balanced"]
Precision = Literal["float32", "mixed_bfloat16", "auto"]
Views = Literal["one", "shifted"]
BatchSize = Annotated[int, Field(ge=1)] | Literal["full"]


def parse_batch_size(text: str) -> int | Literal["full"]:
    """Parse "full" or a positive number. Raises OptionError."""
    if text == "full":
        return "full"
    if not text.isdecimal() or int(text) < 1:
        raise OptionError(f"--batch-size {text} is neither a number of pictures nor full.")
    return int(text)


@dataclass(frozen=True)
class Augmentation:
    """Data augmentation: each change is drawn uniformly from ± its value; 0 turns it off.

    Geometry is in degrees, and in fractions of the side. Positions outside the picture are black, or with `edge`
    "nearest" take the colour of its edge. `elastic` is the largest displacement of a pixel by elastic distortion.
    `paper` is the share of pictures that get a grey, unevenly lit ground, weaker strokes and sensor noise, like a
    photographed sheet.

    For photos: `mirror` flips half of the pictures left to right. `colour` is the strength of changes in light and
    camera; 1 is what daylight and lamps do to a snapshot. `blur` and `erase` are the shares of pictures that are
    blurred, and in which a rectangle is erased; `noise` is the largest standard deviation of sensor noise, in levels of
    255.
    """

    rotation_degrees: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    shear_degrees: float = 0.0
    elastic: float = 0.0
    edge: Literal["black", "nearest"] = "black"
    paper: float = 0.0
    mirror: bool = False
    colour: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    erase: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Every field with a description is an option of `fit`, and defaults to the preset's
    value.

    - `batch_size`: "full" is plain gradient descent, one step an epoch over all pictures.
    - `schedule`: "constant" keeps `learning_rate`; "one_cycle" rises to it from a 25th and falls to zero at the last
      step along a cosine (Smith 2018, arXiv:1803.09820); "cosine" falls from it (Loshchilov & Hutter 2017,
      arXiv:1608.03983). `warm_up` is the share of the steps that rise; None is a fifth for "one_cycle", else none.
    - `weight_decay`: None is 0.01 with AdamW, and none with others.
    - `label_smoothing`: Szegedy et al. 2016, arXiv:1512.00567.
    - `mixup`: α of the Beta distribution by which pairs are blended (Zhang et al. 2018, arXiv:1710.09412).
    - `weight_averaging`: the running mean (Polyak) is validated and exported.
    - `steps_per_execution`: it does not change the weights.
    """

    epochs: Annotated[int, ALWAYS] = Field(
        default=10,
        ge=0,
        description="Passes over the training pictures; with 0, a preset with a backbone trains only its head.",
    )
    batch_size: Annotated[BatchSize, reads(parse_batch_size), ALWAYS] = Field(
        default=32, description="Pictures per step, or full for one step per epoch (gradient descent)."
    )
    loss: Annotated[Loss, ALWAYS] = Field(default="crossentropy", description="Loss function.")
    optimizer: Annotated[OptimizerName, ALWAYS] = Field(default="adam", description="Optimizer.")
    learning_rate: Annotated[float, Option(repeated="always", late=True)] = Field(
        default=0.001, gt=0, description="Learning rate; with a schedule, its peak."
    )
    schedule: Schedule = Field(default="constant", description="Learning rate schedule.")
    warm_up: float | None = Field(
        default=None, ge=0, le=0.9, description="Share of the steps over which the learning rate rises to its peak."
    )
    weight_decay: float | None = Field(default=None, ge=0, description="Decoupled weight decay of the kernels.")
    momentum: float = Field(default=0.9, ge=0, le=0.999, description="Momentum of the optimizer momentum (Nesterov's).")
    clip_norm: float = Field(
        default=0.0, ge=0, description="Largest norm of the gradient of each weight matrix; 0 for no limit."
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        le=0.9,
        description="Label smoothing: share of each target that is spread evenly over all classes.",
    )
    mixup: float = Field(default=0.0, ge=0, description="Alpha of mixup, which blends pairs of pictures; 0 for none.")
    augment_until: float = Field(
        default=1.0, ge=0, le=1, description="Share of the epochs with augmentation and mixup."
    )
    weight_averaging: float = Field(
        default=0.0,
        ge=0,
        le=0.99999,
        description="Decay of the exponential moving average of the weights, which is what is exported; 0 for none.",
    )
    class_weights: ClassWeights = Field(
        default="none",
        description="Weights of the classes in the loss; balanced gives every class the same total weight.",
    )
    early_stopping: int = Field(
        default=0,
        ge=0,
        description=(
            "Stop after this many epochs without a lower validation loss, and keep the best epoch; 0 never stops early."
        ),
    )
    precision: Precision = Field(
        default="float32", description="Precision of training; auto uses bfloat16 if the CPU supports it."
    )
    steps_per_execution: int = Field(default=8, ge=1, description="Steps that TensorFlow runs in one call.")
    drop_remainder: bool = Field(default=False, description="Skip the last, incomplete batch of each epoch.")
    validation: Annotated[float, Option(repeated="always", late=True)] = Field(
        default=0.0,
        ge=0,
        le=MAX_FRACTION,
        description="Share of each class held out for validation, if the data has no validation split.",
    )
    augmentation: Augmentation | None = None


@dataclass(frozen=True)
class Preset:
    """A named preset; every part of its recipe can be replaced on the command line.

    `views`: the exported graph answers from the picture alone, or averages the logits of the picture and of copies
    shifted by a pixel to each side (test-time augmentation).
    """

    name: str
    summary: str
    preprocessing: PreprocessingSpec
    layers: tuple[Layer, ...]
    """The layers after the backbone, if there is one."""
    recipe: Recipe
    backbone: Backbone | None = None
    views: Views = "one"

    def __str__(self) -> str:
        return self.name

    def describe_layers(self) -> list[dict[str, Any]]:
        """Return the layers in JSON's types, for the manifest, without this machine's paths."""
        stack: tuple[Backbone | Layer, ...] = self.layers
        if self.backbone is not None:
            stack = (replace(self.backbone, weights=Path(self.backbone.weights).name), *stack)
        return [{"layer": type(layer).__name__, **asdict(layer)} for layer in stack]
