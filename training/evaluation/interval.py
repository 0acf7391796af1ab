"""How sure a share of pictures is."""

import math

_Z = 1.959964  # of 95 %, both sides


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share that was found to be `hits` of `count` (Wilson 1927); (0, 1) of none."""
    if not count:
        return 0.0, 1.0
    share, z2 = hits / count, _Z**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)
