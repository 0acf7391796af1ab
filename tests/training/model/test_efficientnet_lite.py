"""EfficientNet-Lite0 is the network that Google trained: an independent implementation gives the same logits."""

from pathlib import Path

import numpy as np
import pytest

from training.errors import OptionError
from training.model import backbone as backbones
from training.model.backbone import build_backbone
from training.model.installed_weights import installed_weights, is_as_published
from training.model.layers import Backbone
from training.model.torch_weights import read_torch_weights


def test_the_logits_are_those_of_an_independent_implementation(data_folder: Path) -> None:
    file = installed_weights()
    assert file is not None
    pictures = np.random.default_rng(0).integers(0, 256, (3, 14, 14, 3), np.uint8).repeat(16, 1).repeat(16, 2)
    features = np.mean(build_backbone(Backbone("efficientnet_lite0"), (224, 224, 3))(pictures), axis=(1, 2))
    classifier = read_torch_weights(file)
    logits = features @ classifier["_fc.weight"].T + classifier["_fc.bias"]
    np.testing.assert_allclose(logits, np.load(data_folder / "lite0_logits.npy"), atol=1e-3)


def test_weights_can_be_given_as_a_file_and_are_the_installed_ones(tmp_path: Path) -> None:
    file = installed_weights()
    assert file is not None
    assert is_as_published(file)
    own = tmp_path / "own.pth"
    own.write_bytes(file.read_bytes())
    found = [build_backbone(Backbone("efficientnet_lite0", weights), (32, 32, 3)) for weights in ("imagenet", str(own))]
    for one, other in zip(*(network.get_weights() for network in found), strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_the_package_or_with_a_changed_file_the_sentence_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.pth"
    changed.write_bytes(b"changed")
    for file, said in ((None, "are not installed"), (changed, "are not what they should be")):
        monkeypatch.setattr(backbones, "installed_weights", lambda file=file: file)
        with pytest.raises(OptionError, match=f"{said}.* Run make setup-training, or give --weights FILE"):
            build_backbone(Backbone("efficientnet_lite0"), (224, 224, 3))


def test_a_file_of_another_network_is_one_sentence(tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    other.write_bytes(b"PK no weights")
    with pytest.raises(OptionError, match="does not hold weights of efficientnet_lite0"):
        build_backbone(Backbone("efficientnet_lite0", str(other)), (224, 224, 3))
