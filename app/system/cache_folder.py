"""Find the folder of caches. Its content can be deleted at any time and is then computed again."""

import os
from pathlib import Path


def cache_folder(kind: str) -> Path | None:
    """Return the folder of one kind of cache, by the XDG specification; None if the user has no home."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        home = named if named.is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return home / "imageclass" / kind
