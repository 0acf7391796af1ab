"""Expand ~ if no shell does: in `--data=~/photos`, in quotes, and in environment variables."""

import os
from pathlib import Path
from typing import Any


def expanded(value: Any) -> Any:
    """Return a path, a text that may be one, or a list of such, with the user's home for ~; anything else as it is."""
    if isinstance(value, list):
        return [expanded(each) for each in value]
    if not isinstance(value, str | Path):
        return value
    return type(value)(os.path.expanduser(value))  # noqa: PTH111 - it would raise for an unknown home
