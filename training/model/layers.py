"""The layers of a preset's network as data. `training.model.network` turns them into Keras layers."""

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from training.declared import Option

Application = Literal["efficientnet_lite0", "mobilenet_v3_small", "efficientnet_v2_b0"]


@dataclass(frozen=True)
class Backbone:
    """A network without its head, before all other layers. It takes levels from 0 to 255.

    `weights` are "imagenet", "none" for random ones, or a file. With weights, the layers before the block
    `fine_tune_from` are frozen ("none" freezes all layers). Batch normalisation keeps its statistics in all layers,
    because a small data set would spoil them.
    """

    application: Application
    weights: Annotated[str, Option(repeated="always", is_path=True)] = Field(
        default="imagenet",
        description="Initial weights of the backbone: imagenet, a file of weights, or none.",
    )
    fine_tune_from: str = Field(
        default="none",
        description="First block of the backbone that is trained, such as block11; the blocks before it stay frozen. "
        "none freezes all.",
    )

    @property
    def is_taught(self) -> bool:
        return self.weights != "none"


@dataclass(frozen=True)
class Conv2D:
    """A convolution with ReLU, and optional batch normalisation between them.

    `pool` is the side of max pooling straight after the convolution. With 2, the layers after it have a quarter of the
    work.
    """

    filters: int
    kernel: int = 3
    padding: Literal["valid", "same"] = "valid"
    batch_normalization: bool = False
    stride: int = 1
    pool: int = 1


@dataclass(frozen=True)
class MaxPool2D:
    size: int = 2


@dataclass(frozen=True)
class GlobalAveragePool2D:
    pass


@dataclass(frozen=True)
class Flatten:
    pass


@dataclass(frozen=True)
class Dropout:
    rate: float


@dataclass(frozen=True)
class Dense:
    """A fully connected layer with ReLU. The last layer, softmax over the classes, is not listed, because every network
    has it."""

    units: int


Layer = Conv2D | MaxPool2D | GlobalAveragePool2D | Flatten | Dropout | Dense
"""The layers between the input (scaled to [0, 1]) and the softmax."""
