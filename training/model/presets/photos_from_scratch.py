"""Photos of things that look alike from the left and the right, from scratch: hands, clothes, fruit. Not for text.

python -m training fit --data sign_digits --name signs --preset photos_from_scratch --group-by runs

About 3 minutes of CPU; on sign_digits 99.7 % of new people's hands (five folds by person: `python -m benchmarks
signs`). 191,706 parameters with ten classes.

It uses no other data and no pretrained weights. Mirrored, rotated, differently lit and partly covered pictures imitate
other people, lamps and cameras.
"""

from app.contract.preprocessing import PreprocessingSpec
from training.model.layers import Conv2D, Dropout, GlobalAveragePool2D, MaxPool2D
from training.model.preset import Augmentation, Preset, Recipe


def _convolution(filters: int) -> Conv2D:
    return Conv2D(filters, padding="same", batch_normalization=True)


PHOTOS_FROM_SCRATCH = Preset(
    name="photos_from_scratch",
    summary="small, from scratch, for some thousand photos of things whose mirror image is of the same class",
    preprocessing=PreprocessingSpec(version=2, height=64, width=64, colour="rgb", jpeg_scale="reduced"),
    layers=(
        _convolution(16),
        MaxPool2D(),
        _convolution(32),
        MaxPool2D(),
        _convolution(48),
        _convolution(48),
        MaxPool2D(),
        _convolution(80),
        _convolution(80),
        MaxPool2D(),
        _convolution(80),
        GlobalAveragePool2D(),
        Dropout(0.2),
    ),
    recipe=Recipe(
        optimizer="adamw",
        learning_rate=0.004,
        schedule="one_cycle",
        weight_decay=0.02,
        batch_size=64,
        epochs=50,
        validation=0.1,
        label_smoothing=0.1,
        weight_averaging=0.99,
        precision="auto",
        augmentation=Augmentation(
            rotation_degrees=20,
            shift=0.1,
            zoom=0.2,
            shear_degrees=8,
            edge="nearest",
            mirror=True,
            colour=1.0,
            blur=0.2,
            noise=6.0,
            erase=0.5,
        ),
    ),
)
