"""How this program was called, and so how it can be called again: what it prints can be pasted.

It needs the standard library alone, so that it can name what is missing if nothing else is installed.
"""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""

Extra = Literal["training", "grpc", "object-storage", "parquet", "ray"]

_EXTRAS: dict[str, Extra] = {
    "google": "grpc",
    "grpc": "grpc",
    "grpc_health": "grpc",
    "jinja2": "training",
    "keras": "training",
    "obstore": "object-storage",
    "pyarrow": "parquet",
    "ray": "ray",
    "scipy": "training",
    "sklearn": "training",
    "tensorflow": "training",
    "threadpoolctl": "training",
}
"""The modules that an extra brings, beside those that the service itself needs."""
_OURS = ("app", "benchmarks", "tests", "training")


def command_line(*words: str, here: bool = True) -> str:
    """Return `python -m` with these words, ready to paste; `here` names the interpreter as the user has named it."""
    return shlex.join([sys.orig_argv[0] if here and sys.orig_argv else "python", "-m", *words])


def this_command(option: str) -> str:
    """Return the command that is running, with an option that it may have already."""
    return shlex.join([*sys.orig_argv, *([] if option in sys.orig_argv else [option])])


def installs(extra: Extra | None) -> str:
    """Return what to run to have an extra's modules, or those that the service needs."""
    package = f"'.[{extra}]'" if extra else "."
    if extra == "parquet":
        return f"run `pip install {package}`"  # in no lock but that of the tests
    if extra == "ray":
        return f"run `make setup-ray` and use .venv-ray, or `pip install {package}`"
    target = "setup-training" if extra == "training" else "setup"  # whose lock has gRPC and obstore
    return f"run `make {target}`, or `pip install {package}`"


@contextmanager
def plain_ends(extra: Extra | None = None) -> Iterator[None]:
    """End the program with one line if a module is not installed, and quietly after Ctrl-C.

    `extra` is the one that the program needs throughout.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        module = (exc.name or "").partition(".")[0]
        if module in ("", *_OURS):
            raise
        python = shlex.join([".venv/bin/python", *sys.orig_argv[1:]])
        sys.exit(
            f"error: {module} is not installed for {sys.orig_argv[0]}: {installs(extra or _EXTRAS.get(module))}. "
            f"After make, the command is: {python}"
        )
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
