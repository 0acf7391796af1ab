"""Find pictures that are dark, bright, blank, blurred or of an odd size, from the numbers in their `Look`.

It opens no picture. "Odd" and "blurred" are relative to the data itself, so drawings are not judged by the standards of
photos.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from training.audit.checks import Thresholds
from training.audit.findings import Finding
from training.audit.image_stats import Look
from training.data.dataset import Picture


def find_poor_pictures(pictures: Sequence[Picture], looks: Sequence[Look], thresholds: Thresholds) -> Iterator[Finding]:
    """Find blank, dark, bright, blurred, oddly sized and oddly shaped pictures among those that can be read."""
    usable = [(picture, look) for picture, look in zip(pictures, looks, strict=True) if look.error is None]
    if not usable:
        return
    sharpness = float(np.median([look.sharpness for _, look in usable]))
    side = float(np.median([_side(look) for _, look in usable]))
    ratio = float(np.median([look.width / look.height for _, look in usable]))
    for picture, look in usable:
        yield from _by_levels(picture, look, thresholds, sharpness)
        factor = _side(look) / side
        if max(factor, 1 / factor) > thresholds["odd-size"]:
            how = f"{factor:.1f} times larger" if factor > 1 else f"{1 / factor:.1f} times smaller"
            yield Finding(
                "odd-size",
                (picture.id,),
                max(factor, 1 / factor),
                f"{look.width}x{look.height} pixels: {how} than most (about {side:.0f} a side).",
            )
        factor = look.width / look.height / ratio
        if max(factor, 1 / factor) > thresholds["odd-ratio"]:
            how = f"{factor:.1f} times wider" if factor > 1 else f"{1 / factor:.1f} times taller"
            yield Finding(
                "odd-ratio",
                (picture.id,),
                max(factor, 1 / factor),
                f"{look.width}x{look.height} pixels: {how} for its size than most.",
            )


def _by_levels(picture: Picture, look: Look, thresholds: Thresholds, sharpness: float) -> Iterator[Finding]:
    if look.spread < thresholds["blank"]:  # whatever else is wrong with its levels follows from this
        sentence = f"Its grey levels span {look.spread:.0f} of 255: there is nothing to see."
        yield Finding("blank", (picture.id,), 255 - look.spread, sentence)
        return
    if look.lightest < thresholds["dark"]:
        sentence = f"All but a hundredth of it is darker than {look.lightest:.0f} of 255."
        yield Finding("dark", (picture.id,), 255 - look.lightest, sentence)
    if look.darkest > thresholds["bright"]:
        sentence = f"All but a hundredth of it is lighter than {look.darkest:.0f} of 255."
        yield Finding("bright", (picture.id,), look.darkest, sentence)
    if sharpness > 0 and look.sharpness < thresholds["blurred"] * sharpness:
        share = look.sharpness / sharpness
        yield Finding("blurred", (picture.id,), 1 - share, f"It has {share:.0%} of the sharpness that most have.")


def _side(look: Look) -> float:
    return float((look.width * look.height) ** 0.5)
