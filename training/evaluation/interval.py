"""The confidence interval of a share of pictures."""

import math
from statistics import NormalDist

_Z = NormalDist().inv_cdf(0.975)  # 95 % lie between its negative and it


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share that was found to be `hits` of `count` (Wilson 1927); (0, 1) of none."""
    if not count:
        return 0.0, 1.0
    z2 = _Z**2
    centre, spread = hits + z2 / 2, _Z * math.sqrt(hits * (count - hits) / count + z2 / 4)
    return max(0.0, (centre - spread) / (count + z2)), min(1.0, (centre + spread) / (count + z2))
