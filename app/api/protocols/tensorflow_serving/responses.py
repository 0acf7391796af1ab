"""Write the answers to predict and classify as JSON. They do not name the model's only output."""

from collections.abc import Sequence

import numpy as np
import orjson
from numpy.typing import NDArray


def predicted(probabilities: NDArray[np.float32], *, columns: bool) -> bytes:
    """Return probabilities (N, K) as a list of lists, in `outputs` if the request was in column form."""
    return orjson.dumps({"outputs" if columns else "predictions": probabilities}, option=orjson.OPT_SERIALIZE_NUMPY)


def classified(probabilities: NDArray[np.float32], labels: Sequence[str]) -> bytes:
    """Return a list of [label, probability] for each picture, in the order of the model's labels."""
    # orjson writes a float32 with the fewest digits that read back as the same float32; a Python float has more.
    texts = [orjson.dumps(label) for label in labels]
    rows = [
        b",".join(
            b"[%b,%b]" % pair
            for pair in zip(texts, orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b","), strict=True)
        )
        for row in probabilities
    ]
    return b'{"results":[%b]}' % b",".join(b"[%b]" % row for row in rows)
