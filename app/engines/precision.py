"""Decide whether a model may run in bfloat16: only if its answers barely change.

bfloat16 keeps 8 bits of a number's 24. On CPUs that have it a network runs in about half the time or less, and its
probabilities move by up to 0.01, or 0.03 for a large network. Whether that matters depends on the network.
"""

import numpy as np

from app.contract.bundle import Bundle
from app.contract.preprocessing import Image
from app.engines.engine import Engine
from app.errors import SelfCheckFailed

MAX_BF16_DIFFERENCE = 0.02
"""By how much bfloat16 may move a probability; no label may change."""
_SHIFTS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1), (2, 2), (-2, -2))
_CONTRASTS = (1.0, 0.7)
_BATCH = 16


def check_precision(bundle: Bundle, exact: Engine, fast: Engine) -> float:
    """Return the largest difference in probability between two engines of the same model.

    They are compared on the golden pictures, which training held out, and on shifted and paler versions of them. Raises
    SelfCheckFailed if a label differs, or a probability by more than `MAX_BF16_DIFFERENCE`.
    """
    sample = _sample(bundle.golden.images)
    batches = [sample[start : start + _BATCH] for start in range(0, len(sample), _BATCH)]
    expected = np.concatenate([exact.predict(batch) for batch in batches])
    found = np.concatenate([fast.predict(batch) for batch in batches])
    changed = int((found.argmax(axis=1) != expected.argmax(axis=1)).sum())
    difference = float(np.abs(found - expected).max())
    if changed or not difference <= MAX_BF16_DIFFERENCE:  # "not <=", so that NaN fails
        raise SelfCheckFailed(
            f"{bundle.path}: bfloat16 changes {changed} labels of {len(sample)} and moves probabilities by up to "
            f"{difference:.2g} (allowed: 0 labels, {MAX_BF16_DIFFERENCE:g})."
        )
    return difference


def _sample(images: Image) -> Image:
    """Return the images (N, H, W, C), each at several shifts and contrasts."""
    shifted = [np.roll(images, shift, axis=(1, 2)) for shift in _SHIFTS]
    return np.concatenate([(each * contrast).astype(np.uint8) for each in shifted for contrast in _CONTRASTS])
