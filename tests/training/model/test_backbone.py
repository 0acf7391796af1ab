"""Networks that ImageNet has taught: their weights, their own scale, what is frozen, and that they can be served."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from app.contract.bundle import Signature
from app.contract.preprocessing import PreprocessingSpec
from app.engines.openvino import open_openvino
from app.engines.tensorflow import import_tensorflow, open_tensorflow
from training.errors import OptionError
from training.model.backbone import NAME, build_backbone, divide
from training.model.efficientnet_lite import efficientnet_lite0
from training.model.layers import Application, Backbone, Dropout, GlobalAveragePool2D
from training.model.network import build_network
from training.model.presets import preset_named
from training.model.saved_model import save
from training.options import with_backbone

# Keras's own reading of weights, with TensorFlow's variables and NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SHAPE = (32, 32, 3)
APPLICATIONS: tuple[Application, ...] = get_args(Application)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), np.uint8)


def application(name: Application, **options: Any) -> Any:
    import keras

    makers = {
        "mobilenet_v3_small": keras.applications.MobileNetV3Small,
        "efficientnet_v2_b0": keras.applications.EfficientNetV2B0,
    }
    if name == "efficientnet_lite0":
        return efficientnet_lite0(options["input_shape"], name="lite0")
    return makers[name](include_top=False, **options)


def with_statistics(network: Any) -> Any:
    """Give an untrained network what tells it from another, in batch normalisation too."""
    import keras

    for number, layer in enumerate(network.layers):
        if isinstance(layer, keras.layers.BatchNormalization):
            random = np.random.default_rng(number)
            layer.set_weights([weight * random.uniform(0.7, 1.3, weight.shape) for weight in layer.get_weights()])
    return network


@pytest.fixture(scope="module")
def originals() -> dict[Application, Any]:
    """Networks that nobody has trained: their weights are as good as published ones for what is tested here."""
    import_tensorflow()
    return {name: with_statistics(application(name, weights=None, input_shape=SHAPE)) for name in APPLICATIONS}


@pytest.fixture(scope="module")
def weights_files(
    originals: dict[Application, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[Application, Path]:
    folder = tmp_path_factory.mktemp("weights")
    files = {name: folder / f"{name}.weights.h5" for name in APPLICATIONS}
    for name, original in originals.items():
        original.save_weights(files[name])
    return files


@pytest.fixture(scope="module")
def networks(weights_files: dict[Application, Path]) -> dict[Application, Any]:
    """A network of each backbone with the weights of its file, all of it frozen. No test may change one."""
    head = (GlobalAveragePool2D(), Dropout(0.2))
    return {
        name: build_network(head, shape=SHAPE, classes=3, backbone=Backbone(name, str(file)))
        for name, file in weights_files.items()
    }


@pytest.fixture(scope="module")
def features(networks: dict[Application, Any]) -> dict[Application, Any]:
    """What each backbone answers to IMAGES."""
    return {name: network.get_layer(NAME)(IMAGES, training=False) for name, network in networks.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_pictures_come_to_the_features_that_keras_computes_of_them(
    name: Application, originals: dict[Application, Any], features: dict[Application, Any]
) -> None:
    expected = originals[name](IMAGES.astype(np.float32), training=False)
    np.testing.assert_allclose(features[name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_both_engines_serve_what_was_trained(
    name: Application, networks: dict[Application, Any], tmp_path: Path
) -> None:
    built = networks[name]
    spec = PreprocessingSpec(height=32, width=32, colour="rgb")
    signature = Signature.of(spec, ("a", "b", "c"))
    save(built, tmp_path, signature)
    expected = built(IMAGES, training=False).numpy()
    for engine in (open_tensorflow(tmp_path, signature, threads=1), open_openvino(tmp_path, signature, threads=1)):
        np.testing.assert_allclose(engine.predict(IMAGES), expected, atol=1e-4)
        engine.close()


def test_statistics_of_given_weights_stay_and_those_of_none_follow(
    weights_files: dict[Application, Path], networks: dict[Application, Any]
) -> None:
    def changes(backbone: Any) -> bool:
        before = [value.numpy() for value in backbone.non_trainable_variables]
        backbone(IMAGES, training=True)
        after = [value.numpy() for value in backbone.non_trainable_variables]
        return any(not np.array_equal(old, new) for old, new in zip(before, after, strict=True))

    given = networks["mobilenet_v3_small"].get_layer(NAME)
    assert given.trainable_variables == []
    assert not changes(given)
    learning = build_backbone(
        Backbone("mobilenet_v3_small", str(weights_files["mobilenet_v3_small"]), "expanded_conv_8"), SHAPE
    )
    names = {variable.path.split("/")[0] for variable in learning.trainable_variables}
    assert "expanded_conv_8_expand" in names
    assert "expanded_conv_7_expand" not in names
    assert not any("bn" in name for name in names)
    assert not changes(learning)
    assert changes(build_backbone(Backbone("mobilenet_v3_small", "none"), SHAPE))


FROM: dict[Application, tuple[str, ...]] = {
    "efficientnet_lite0": ("block11", "head", "none"),
    "mobilenet_v3_small": ("expanded_conv_8",),
    "efficientnet_v2_b0": ("block6b",),
}


@pytest.mark.parametrize(("name", "block"), [(name, block) for name, blocks in FROM.items() for block in blocks])
def test_a_backbone_is_divided_before_any_block(
    name: Application, block: str, networks: dict[Application, Any], features: dict[Application, Any]
) -> None:
    front, back = divide(networks[name].get_layer(NAME), block)
    np.testing.assert_allclose(back(front(IMAGES)), features[name], atol=1e-4)
    later = {layer.name for layer in back.layers}
    assert not later & {layer.name for layer in front.layers if layer.weights}
    assert block == "none" or any(layer.startswith(block) for layer in later)


def test_a_block_that_does_not_exist_is_one_sentence(weights_files: dict[Application, Path]) -> None:
    wanted = Backbone("efficientnet_lite0", str(weights_files["efficientnet_lite0"]), "block99")
    with pytest.raises(OptionError, match="--fine-tune-from block99: the backbone has no such block"):
        build_backbone(wanted, SHAPE)


def test_a_file_that_is_not_there_or_holds_other_weights_is_one_sentence(
    weights_files: dict[Application, Path], tmp_path: Path
) -> None:
    junk = tmp_path / "junk.h5"
    junk.write_bytes(b"junk")
    other, unnamed = weights_files["efficientnet_v2_b0"], tmp_path / "weights"
    unnamed.write_bytes(weights_files["mobilenet_v3_small"].read_bytes())
    for file in (junk, other, unnamed):
        with pytest.raises(OptionError, match=r"does not hold weights of mobilenet_v3_small .* https://"):
            build_backbone(Backbone("mobilenet_v3_small", str(file)), SHAPE)
    with pytest.raises(OptionError, match="--weights nothing is neither imagenet, none nor a file"):
        with_backbone(preset_named("mobilenet_v3_small"), {"weights": "nothing"})


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "efficientnet_v2_b0"])
def test_without_a_network_the_sentence_says_where_keras_gets_imagenets_weights(
    name: Application, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import_tensorflow()
    from keras.src.utils import file_utils

    asked = []

    def unreachable(address: str, *_: object) -> None:
        asked.append(address)
        raise OSError("Network is unreachable")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(file_utils, "urlretrieve", unreachable)
    with pytest.raises(OSError, match="unreachable"):
        application(name, weights="imagenet", input_shape=(224, 224, 3))
    with pytest.raises(OptionError, match="--weights FILE; --weights none starts from random weights") as caught:
        build_backbone(Backbone(name), SHAPE)
    assert asked[0] == asked[1]
    assert asked[0] in str(caught.value)


def test_pictures_that_a_backbone_cannot_take_are_named() -> None:
    with pytest.raises(OptionError, match="--colour rgb"):
        build_backbone(Backbone("efficientnet_v2_b0", "none"), (32, 32, 1))
    with pytest.raises(OptionError, match="31x40 are too small for efficientnet_v2_b0"):
        build_backbone(Backbone("efficientnet_v2_b0", "none"), (40, 31, 3))


def test_the_record_names_a_weights_file_without_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "w.h5"
    file.touch()
    preset = with_backbone(preset_named("mobilenet_v3_small"), {"weights": str(file)})
    assert preset.describe_layers()[0] == {
        "layer": "Backbone",
        "application": "mobilenet_v3_small",
        "weights": "w.h5",
        "fine_tune_from": "expanded_conv_8",
    }


def test_options_of_a_backbone_are_refused_where_there_is_none() -> None:
    with pytest.raises(OptionError, match=r"seed has no backbone.* mobilenet_v3_small, efficientnet_v2_b0"):
        with_backbone(preset_named("seed"), {"weights": "none"})
