"""Single characters, drawn or photographed, light on dark or dark on light. The bundled `mnist` model used it.

python -m training fit --data mnist.npz --name mnist --preset handwriting

Preprocessing inverts dark strokes on a light ground, scales the drawing as MNIST's digits are scaled, and puts its
centre of mass in the middle, so polarity, size and place are always the same for the network. Small random rotations,
shifts and stretches imitate other people's handwriting; a grey, uneven ground imitates paper and camera.
"""

from app.contract.preprocessing import PreprocessingSpec
from training.model.layers import Conv2D, GlobalAveragePool2D, MaxPool2D
from training.model.preset import Augmentation, Preset, Recipe

HANDWRITING = Preset(
    name="handwriting",
    summary="small and accurate for single characters of either polarity",
    preprocessing=PreprocessingSpec(
        version=2, height=28, width=28, colour="grey", resize="pad", polarity="light_on_dark", framing="mass"
    ),
    layers=(
        Conv2D(16, batch_normalization=True),
        Conv2D(16, batch_normalization=True),
        MaxPool2D(),
        Conv2D(32, batch_normalization=True),
        Conv2D(32, batch_normalization=True),
        MaxPool2D(),
        Conv2D(64, batch_normalization=True),
        GlobalAveragePool2D(),
    ),
    recipe=Recipe(
        optimizer="adamw",
        learning_rate=0.004,
        schedule="one_cycle",
        batch_size=128,
        epochs=15,
        validation=0.05,
        augmentation=Augmentation(rotation_degrees=12, shift=0.08, zoom=0.12, shear_degrees=8, paper=0.3),
    ),
)
