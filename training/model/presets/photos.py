"""Photos, on backbones that were trained on ImageNet: a few hundred pictures of a class are plenty, ten are a start.

python -m training fit --data my-photos --name mine

`photos_quick` and `photos` differ only in how many layers are trained. The first trains the last layer alone, on fixed
features; the second then trains the last third of the network, on maps that the blocks before it computed once. Weights
of `photos` and `photos_quick` are installed with the training environment; those of the other two are downloaded by
Keras, or given by --weights FILE. The accuracy of those two has not been measured here.
"""

from app.contract.preprocessing import PreprocessingSpec
from training.model.layers import Application, Backbone, GlobalAveragePool2D
from training.model.preset import Augmentation, Preset, Recipe


def _on_imagenet(name: str, summary: str, application: Application, fine_tune_from: str, *, epochs: int) -> Preset:
    return Preset(
        name=name,
        summary=summary,
        preprocessing=PreprocessingSpec(
            version=2, height=224, width=224, colour="rgb", resize="crop", jpeg_scale="reduced"
        ),
        backbone=Backbone(application, fine_tune_from=fine_tune_from),
        layers=(GlobalAveragePool2D(),),
        recipe=Recipe(
            optimizer="adamw",
            learning_rate=0.0005,
            schedule="cosine",
            warm_up=0.1,
            weight_decay=0.0001,
            clip_norm=1.0,
            batch_size=32,
            steps_per_execution=1,  # one takes a second on a CPU
            epochs=epochs,
            validation=0.1,
            label_smoothing=0.1,
            augmentation=Augmentation(mirror=True),
        ),
    )


PHOTOS_QUICK = _on_imagenet(
    "photos_quick",
    "ImageNet's features alone, for photos in a minute or two",
    "efficientnet_lite0",
    "block11",
    epochs=0,
)
PHOTOS = _on_imagenet(
    "photos", "ImageNet's features, then fine-tuning, for photos", "efficientnet_lite0", "block11", epochs=3
)
MOBILENET_V3_SMALL = _on_imagenet(
    "mobilenet_v3_small", "like photos, on MobileNetV3-Small", "mobilenet_v3_small", "expanded_conv_8", epochs=3
)
EFFICIENTNET_V2_B0 = _on_imagenet(
    "efficientnet_v2_b0", "like photos, on EfficientNetV2-B0", "efficientnet_v2_b0", "block6a", epochs=3
)
