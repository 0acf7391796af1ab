"""The service in an installation without TensorFlow: importing it or Keras fails.

`python -m tests.end_to_end.without_tensorflow serve` is `python -m app serve` but for that. Workers inherit it: they
are forked from this process.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from app.__main__ import cli


class NotInstalled(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in {"tensorflow", "keras"}:
            raise ModuleNotFoundError(f"No module named '{fullname}'", name=fullname)
        return None


sys.meta_path.insert(0, NotInstalled())
cli(prog_name="python -m app")
