"""The names of the distribution strategies, for the command line, which does not load TensorFlow."""

from typing import Literal

StrategyName = Literal["none", "mirrored", "multi_worker"]
