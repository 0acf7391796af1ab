"""The presets by name, one small file each."""

from training.errors import OptionError
from training.model.preset import Preset
from training.model.presets.accurate import ACCURATE
from training.model.presets.compact import COMPACT, TINY
from training.model.presets.efficientnet_v2_b0 import EFFICIENTNET_V2_B0
from training.model.presets.handwriting import HANDWRITING
from training.model.presets.mobilenet_v3_small import MOBILENET_V3_SMALL
from training.model.presets.photos import PHOTOS
from training.model.presets.quick import QUICK
from training.model.presets.seed import SEED

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (SEED, QUICK, TINY, COMPACT, ACCURATE, HANDWRITING, PHOTOS, MOBILENET_V3_SMALL, EFFICIENTNET_V2_B0)
}


def preset_named(name: str) -> Preset:
    """Return a preset. Raises OptionError, which lists the presets."""
    try:
        return PRESETS[name]
    except KeyError:
        raise OptionError(f"There is no preset '{name}'. Choose one of: {', '.join(PRESETS)}.") from None
