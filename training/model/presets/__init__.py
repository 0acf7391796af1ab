"""The presets by name, a small file for each or for a family."""

from training.errors import OptionError
from training.model.preset import Preset
from training.model.presets.accurate import ACCURATE
from training.model.presets.compact import COMPACT, TINY
from training.model.presets.handwriting import HANDWRITING
from training.model.presets.photos import EFFICIENTNET_V2_B0, MOBILENET_V3_SMALL, PHOTOS, PHOTOS_QUICK
from training.model.presets.photos_from_scratch import PHOTOS_FROM_SCRATCH
from training.model.presets.quick import QUICK
from training.model.presets.seed import SEED

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        SEED,
        QUICK,
        TINY,
        COMPACT,
        ACCURATE,
        HANDWRITING,
        PHOTOS,
        PHOTOS_QUICK,
        PHOTOS_FROM_SCRATCH,
        MOBILENET_V3_SMALL,
        EFFICIENTNET_V2_B0,
    )
}


def preset_named(name: str) -> Preset:
    """Return a preset. Raises OptionError, which lists the presets."""
    try:
        return PRESETS[name]
    except KeyError:
        raise OptionError(f"There is no preset '{name}'. Choose one of: {', '.join(PRESETS)}.") from None
