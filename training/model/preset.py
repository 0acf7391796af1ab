"""What a preset is: preprocessing, network and recipe, all of it data."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from app.contract.preprocessing import PreprocessingSpec
from training.model.layers import Backbone, Layer

Loss = Literal["crossentropy", "mse"]
OptimizerName = Literal["sgd", "momentum", "rmsprop", "adam", "adamw"]
Schedule = Literal["constant", "one_cycle", "cosine"]
ClassWeights = Literal["none", "balanced"]
Precision = Literal["float32", "mixed_bfloat16", "auto"]
Views = Literal["one", "shifted"]
BatchSize = int | Literal["full"]


@dataclass(frozen=True)
class Augmentation:
    """Random changes to training pictures, each drawn uniformly from ± its value; 0 leaves that change out.

    Geometry in degrees, and in fractions of the side; what comes into view is black, or with `edge` "nearest" what the
    picture's edge shows. `elastic` is how far a smooth distortion moves a pixel at most. `paper` is the share of
    pictures that get a grey, unevenly lit ground, weaker strokes and sensor noise, as a photographed sheet has.

    For photos: `mirror` turns half of the pictures left to right. `colour` is how strongly light and camera differ, 1
    for what daylight and lamps do to a snapshot. `blur` and `erase` are the shares of pictures that are softened, and
    that lose a rectangle; `noise` is the most that sensor noise deviates, in levels of 255.
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
class FineTune:
    """What follows `Recipe.epochs`, in which the layer named "backbone" was frozen: all layers learn, at this rate."""

    epochs: int
    learning_rate: float


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. `batch_size` "full" is plain gradient descent: one step an epoch over all pictures.

    - `schedule`: "constant" keeps `learning_rate`; "one_cycle" climbs to it from a 25th and falls to nothing at the
      last step along a cosine (Smith 2018, arXiv:1803.09820); "cosine" falls from it (Loshchilov & Hutter 2017,
      arXiv:1608.03983). `warm_up` is the share of the steps that climb; None is a fifth in one cycle, else none.
    - `weight_decay`: decoupled, on kernels only; None is 0.01 with AdamW, and none with others.
    - `momentum`: of the optimizer "momentum", which is Nesterov's.
    - `label_smoothing`: the share of each target that all classes get alike (Szegedy et al. 2016, arXiv:1512.00567).
    - `mixup`: α of the Beta distribution by which pairs are blended (Zhang et al. 2018, arXiv:1710.09412); 0 is none.
    - `augment_until`: the share of the epochs after which pictures are left as they are, neither changed nor blended.
    - `weight_averaging`: decay of the running mean of the weights that is validated and exported (Polyak); 0 is none.
    - `class_weights`: "balanced" lets every class weigh alike in the loss, however few pictures it has.
    - `early_stopping`: stop after so many epochs without a lower validation loss, and take the best; 0 is never.
    - `precision`: what the layers compute in while they are trained; "auto" is bfloat16 where the CPU has it.
    - `steps_per_execution`: how many steps TensorFlow takes between two looks at the loss; the weights are the same.
    - `drop_remainder`: leave out, of each epoch anew, the few pictures that do not fill a batch.
    """

    loss: Loss = "crossentropy"
    optimizer: OptimizerName = "adam"
    learning_rate: float = 0.001
    schedule: Schedule = "constant"
    warm_up: float | None = None
    weight_decay: float | None = None
    momentum: float = 0.9
    batch_size: BatchSize = 32
    epochs: int = 10
    validation: float = 0.0
    augmentation: Augmentation | None = None
    augment_until: float = 1.0
    mixup: float = 0.0
    label_smoothing: float = 0.0
    weight_averaging: float = 0.0
    class_weights: ClassWeights = "none"
    early_stopping: int = 0
    precision: Precision = "float32"
    steps_per_execution: int = 8
    drop_remainder: bool = False
    fine_tune: FineTune | None = None

    @property
    def total_epochs(self) -> int:
        return self.epochs + (0 if self.fine_tune is None else self.fine_tune.epochs)


@dataclass(frozen=True)
class Preset:
    """A named starting point; every part of its recipe can be replaced on the command line.

    `views`: what the exported graph looks at for one answer: the picture, or also the picture moved by a pixel to each
    side, whose logits are averaged.
    """

    name: str
    summary: str
    preprocessing: PreprocessingSpec
    layers: tuple[Layer, ...]
    """Those after the backbone, where there is one."""
    recipe: Recipe
    backbone: Backbone | None = None
    views: Views = "one"

    def describe_layers(self) -> list[dict[str, Any]]:
        """Return the layers in JSON's types, for the manifest: without the folders of this machine."""
        stack: tuple[Backbone | Layer, ...] = self.layers
        if self.backbone is not None:
            stack = (replace(self.backbone, weights=Path(self.backbone.weights).name), *stack)
        return [{"layer": type(layer).__name__, **asdict(layer)} for layer in stack]
