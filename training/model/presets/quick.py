"""Small grey pictures in seconds. If its accuracy is not enough, try `compact` next.

python -m training fit --data mnist.npz --name mnist --preset quick

About 5 s of training on 2 cores; 99.37 % on MNIST's 10,000 test pictures, the mean of five seeds. 29,658 parameters.
"""

from app.contract.preprocessing import PreprocessingSpec
from training.model.layers import Conv2D, Flatten
from training.model.preset import Preset, Recipe

QUICK = Preset(
    name="quick",
    summary="small grey pictures in seconds",
    preprocessing=PreprocessingSpec(height=28, width=28, colour="grey"),
    layers=(
        Conv2D(16, kernel=5, batch_normalization=True, pool=2),
        Conv2D(32, batch_normalization=True, pool=2),
        Conv2D(64, batch_normalization=True),
        Flatten(),
    ),
    recipe=Recipe(
        optimizer="adamw",
        learning_rate=0.01,
        schedule="one_cycle",
        weight_decay=0.05,
        batch_size=128,
        epochs=2,
        weight_averaging=0.99,
        precision="auto",
        drop_remainder=True,
    ),
    views="shifted",
)
