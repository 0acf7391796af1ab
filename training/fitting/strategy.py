"""The ways to spread a training, which the command line names before TensorFlow is loaded."""

from typing import Literal

StrategyName = Literal["none", "mirrored", "multi_worker"]
