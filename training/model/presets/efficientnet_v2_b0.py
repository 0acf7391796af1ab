"""Photos, on a backbone trained on ImageNet, six times the size of mobilenet_v3_small.

python -m training fit --data my-photos --name mine --preset efficientnet_v2_b0

Its steps over 1,000 photos take about 8.5 minutes of CPU in all; 2 cores of an AMD EPYC (Zen 4) share them.
5,932,122 parameters with ten classes. What it reaches with ImageNet's weights has not been measured here.

The weights are downloaded once; --weights FILE takes them from a file, --weights none starts from random ones, which
takes many pictures and epochs.
"""

from app.contract.preprocessing import PreprocessingSpec
from training.model.layers import Backbone, Dropout, GlobalAveragePool2D
from training.model.preset import Augmentation, FineTune, Preset, Recipe

EFFICIENTNET_V2_B0 = Preset(
    name="efficientnet_v2_b0",
    summary="photos, on EfficientNetV2-B0 and ImageNet's weights",
    preprocessing=PreprocessingSpec(
        version=2, height=224, width=224, colour="rgb", resize="crop", jpeg_scale="reduced"
    ),
    backbone=Backbone("efficientnet_v2_b0"),
    layers=(GlobalAveragePool2D(), Dropout(0.2)),
    recipe=Recipe(
        optimizer="adamw",
        learning_rate=0.001,
        schedule="one_cycle",
        batch_size=32,
        steps_per_execution=1,  # one takes seconds on a CPU
        epochs=10,
        fine_tune=FineTune(epochs=10, learning_rate=0.0001),
        validation=0.1,
        augmentation=Augmentation(rotation_degrees=10, shift=0.08, zoom=0.15, edge="nearest", mirror=True, colour=0.5),
    ),
)
