"""The most accurate on single characters; training takes a few minutes.

python -m training fit --data mnist.npz --name mnist --preset accurate

4 minutes on 2 cores; 99.74 % on MNIST's 10,000 test pictures, the mean of five seeds. 284,250 parameters.
"""

from app.contract.preprocessing import PreprocessingSpec
from training.model.layers import Conv2D, Dropout, GlobalAveragePool2D
from training.model.preset import Augmentation, Preset, Recipe

ACCURATE = Preset(
    name="accurate",
    summary="the best on single characters",
    preprocessing=PreprocessingSpec(height=28, width=28, colour="grey"),
    layers=(
        Conv2D(16, batch_normalization=True),
        Conv2D(32, batch_normalization=True, pool=2),
        Conv2D(64, batch_normalization=True),
        Conv2D(64, batch_normalization=True, pool=2),
        Conv2D(128, padding="same", batch_normalization=True),
        Conv2D(128, padding="same", batch_normalization=True),
        GlobalAveragePool2D(),
        Dropout(0.2),
    ),
    recipe=Recipe(
        optimizer="adamw",
        learning_rate=0.004,
        schedule="one_cycle",
        weight_decay=0.05,
        batch_size=128,
        epochs=24,
        validation=0.05,
        augmentation=Augmentation(rotation_degrees=12, shift=0.08, zoom=0.12, shear_degrees=8, elastic=0.064),
        label_smoothing=0.05,
        weight_averaging=0.998,
        precision="auto",
        drop_remainder=True,
    ),
    views="shifted",
)
