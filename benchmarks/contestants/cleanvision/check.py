"""cleanvision's two checks for copies, with its default settings, on the files of the given folder.

It gets the files by name: given a folder, it would skip .bmp. Prints one line of JSON: its version, and sets of names
of the files that it finds to be the same picture.
"""

import contextlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

from cleanvision import Imagelab

_CHECKS = {"exact": "exact_duplicates", "near": "near_duplicates"}


def main(folder: Path) -> None:
    files = [str(file) for file in sorted(folder.iterdir())]
    with contextlib.redirect_stdout(sys.stderr):
        lab = Imagelab(filepaths=files, verbose=False)
        lab.find_issues({check: {} for check in _CHECKS.values()}, verbose=False)
    sets = {
        name: [[Path(file).name for file in found] for found in lab.info[check]["sets"]]
        for name, check in _CHECKS.items()
    }
    print(json.dumps({"version": version("cleanvision"), **sets}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
