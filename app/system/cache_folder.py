"""Where caches lie. Everything in there can be removed at any time: it is only worked out again."""

import os
from pathlib import Path


def cache_folder(kind: str) -> Path | None:
    """Return the folder of one kind of cache, by the XDG rule; None if the user has no home."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        home = named if named.is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return home / "imageclass" / kind
