"""How this program was called, so that the commands that it prints can be pasted.

It needs the standard library alone, so that it can name what is missing if nothing else is installed.
"""

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

SCRIPT = "imageclass"
"""The command that an installed package has: every command of `python -m app` and of `python -m training`."""

INTERRUPTED = 130
"""The exit code after Ctrl-C, the same as that of shells."""
TERMINATED = 143
"""The exit code after SIGTERM, the same as that of shells. A service that stops in order ends with 0."""

Extra = Literal["training", "grpc", "object-storage", "parquet", "ray", "tracing"]

_EXTRAS: dict[str, Extra] = {
    "google": "grpc",
    "grpc": "grpc",
    "grpc_health": "grpc",
    "jinja2": "training",
    "keras": "training",
    "obstore": "object-storage",
    "opentelemetry": "tracing",  # all of it but the API, which FastAPI needs
    "pyarrow": "parquet",
    "ray": "ray",
    "scipy": "training",
    "sklearn": "training",
    "tensorflow": "training",
    "threadpoolctl": "training",
}
"""The modules that an extra brings, beside those that the service itself needs."""
_OURS = ("app", "benchmarks", "imageclass", "tests", "training")
_CHECKOUT = Path(__file__).parents[2]


def command_line(*words: str, here: bool = True) -> str:
    """Return `python -m` with these words, ready to paste.

    With `here`, the command has the interpreter as the user named it, or `imageclass` if the user called that script.
    """
    if here and (script := _script()):
        return shlex.join([script, *words[1:]])
    return shlex.join([sys.orig_argv[0] if here and sys.orig_argv else "python", "-m", *words])


def this_command(option: str) -> str:
    """Return the command that is running, with an option that it may have already."""
    script = _script()
    words = [script, *sys.argv[1:]] if script else sys.orig_argv
    return shlex.join([*words, *([] if option in words else [option])])


def _script() -> str | None:
    """Return the user's path of the script `imageclass`, or None if another program runs."""
    called = sys.orig_argv[1] if len(sys.orig_argv) > 1 else ""
    if Path(called).name != SCRIPT:
        return None
    return SCRIPT if shutil.which(SCRIPT) == called else called


def installs(extra: Extra | None) -> str:
    """Return the command that installs an extra's modules, or those that the service needs."""
    if not (_CHECKOUT / "Makefile").exists():  # installed from a wheel
        return f"run `pip install '{SCRIPT}{f'[{extra}]' if extra else ''}'`"
    package = f"'.[{extra}]'" if extra else "."
    if extra == "parquet":
        return f"run `pip install {package}`"  # in no lock but that of the tests
    if extra == "ray":
        return f"run `make setup-ray` and use .venv-ray, or `pip install {package}`"
    target = "setup-training" if extra == "training" else "setup"  # whose lock has gRPC, obstore and OpenTelemetry
    return f"run `make {target}`, or `pip install {package}`"


@contextmanager
def plain_ends(extra: Extra | None = None) -> Iterator[None]:
    """End the program with one line if a module is not installed, and quietly after Ctrl-C.

    `extra` is the one that the program needs throughout. Process 1 of a container ignores SIGTERM unless it has a
    handler, so it gets one here, before the imports of a second: else a stop in that time would wait for SIGKILL.
    """
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(TERMINATED))
    try:
        yield
    except ModuleNotFoundError as exc:
        module = (exc.name or "").partition(".")[0]
        if module in ("", *_OURS):
            raise
        advice = installs(extra or _EXTRAS.get(module))
        if "`make" in advice:
            advice += f". After make, the command is: {shlex.join(['.venv/bin/python', *sys.orig_argv[1:]])}"
        sys.exit(f"error: {module} is not installed for {sys.orig_argv[0]}: {advice}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
