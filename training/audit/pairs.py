"""A pair of near duplicates, and the transformation from one to the other. It does not know how the pair was found."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NearPair:
    """Rows `first` and `second` of near duplicates, and the transformation that lays the second over the first.

    `correlation` is that of grey levels after the transformation, or of details in colour if these were compared.
    Shifts are fractions of the side. A `scale` of 1 is no change.
    """

    first: int
    second: int
    correlation: float
    mirrored: bool
    degrees: float
    scale: float
    shift_x: float
    shift_y: float

    def describe(self) -> str:
        """Return in words how the two differ."""
        parts = ["mirrored"] if self.mirrored else []
        if abs(self.degrees) >= 1.5:
            parts.append(f"turned by {abs(self.degrees):.0f}°")
        if abs(self.scale - 1) >= 0.03:
            parts.append(f"zoomed by {abs(self.scale - 1):.0%}")
        if (shift := math.hypot(self.shift_x, self.shift_y)) >= 0.02:
            parts.append(f"shifted by {shift:.0%} of its side")
        return "the same picture, " + (", ".join(parts) if parts else "recompressed, resized or with other levels")
