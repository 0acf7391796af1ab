"""Photos, from a network that ImageNet has taught already: the small one, for few pictures and a fast service.

python -m training fit --data my-photos --name mine --preset efficientnet_v2_b0

@TIME@ 944,890 parameters with ten classes. The weights are
downloaded once; --weights FILE takes them from a file, --weights none starts from random ones, which needs many pictures.
"""

from app.contract.preprocessing import PreprocessingSpec
from training.layers import Backbone, Dropout, GlobalAveragePool2D
from training.preset import Augmentation, Preset, Recipe

EFFICIENTNET_V2_B0 = Preset(
    name="efficientnet_v2_b0",
    summary="photos, on MobileNetV3-Small and ImageNet's weights",
    preprocessing=PreprocessingSpec(height=224, width=224, colour="rgb", resize="crop"),
    backbone=Backbone("efficientnet_v2_b0"),
    layers=(GlobalAveragePool2D(), Dropout(0.2)),
    recipe=Recipe(
        optimizer="adamw",
        learning_rate=0.001,
        schedule="one_cycle",
        batch_size=32,
        epochs=10,
        validation=0.1,
        augmentation=Augmentation(rotation_degrees=10, shift=0.08, zoom=0.15),
    ),
)
