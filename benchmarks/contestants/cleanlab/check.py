"""cleanlab's decision on labels, given (N,) labels and (N, K) out-of-fold probabilities in the .npz given by name.

Prints one line of JSON: the rows with wrong labels by its default filter, and by the filter for the plain confident
joint.
"""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
from cleanlab.filter import find_label_issues

_FILTERS = ("prune_by_noise_rate", "confident_learning")


def main(file: Path) -> None:
    with np.load(file) as arrays:
        labels, probabilities = arrays["labels"], arrays["probabilities"]
    found = {}
    with contextlib.redirect_stdout(sys.stderr):
        for name in _FILTERS:
            found[name] = np.flatnonzero(find_label_issues(labels, probabilities, filter_by=name)).tolist()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
