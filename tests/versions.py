"""Make versions of a model from a bundle that exists, without training."""

import json
import shutil
from pathlib import Path

from app.contract.bundle import MANIFEST, Bundle, open_bundle


def version_of(bundle: Path, version: int, into: Path, **changes: object) -> Bundle:
    """Copy a bundle into a folder of models as another version, with `changes` in its manifest."""
    manifest = json.loads((bundle / MANIFEST).read_bytes()) | {"version": version} | changes
    path = Path(shutil.copytree(bundle, into / manifest["name"] / str(version)))
    (path / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return open_bundle(path)
