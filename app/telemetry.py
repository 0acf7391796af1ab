"""Logs of the service: readable text on a terminal, one JSON object a line elsewhere, uvicorn's own lines included.

A client can put text into a line, but cannot forge a line: each event is one line of printable characters, and a
traceback shows the code, never the values in it, which may be a picture or a key.
"""

import faulthandler
import logging
import os
import sys
import threading
import time
import traceback
from types import TracebackType
from typing import Literal, TextIO

import structlog
from structlog.typing import EventDict, ExcInfo, Processor

_TRACEBACKS_PER_SECOND = 10
"""Each takes half a millisecond, and a model that fails on every picture would write one for each."""

_log = structlog.stdlib.get_logger(__name__)


def configure_logging(log_format: Literal["auto", "text", "json"], level: str) -> None:
    """Send every log line of this process to standard error in one format."""
    as_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _drop_uvicorn_colours,
    ]
    final: list[Processor] = (
        [_printable, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=_write_traceback)]
        if as_text
        else [_traceback_as_field, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _limit_tracebacks(_TRACEBACKS_PER_SECOND),
                *final,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def keep_standard_error_for_the_log(log_format: Literal["auto", "text", "json"], level: str) -> None:
    """Configure the log of a process that serves, and discard what C libraries write to standard error.

    libpng, libjpeg and OpenCV write a line or more for each damaged picture: anyone could fill the log with lines that
    are not JSON. At level debug, these lines are kept. A crash still leaves its traceback.
    """
    if level != "debug":
        sys.stderr.flush()
        own = os.dup(2)
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a descriptor, not a path
            os.dup2(nowhere.fileno(), 2)
        sys.stderr = os.fdopen(own, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    faulthandler.enable(sys.stderr)
    configure_logging(log_format, level)


def _drop_uvicorn_colours(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Drop the second copy of the message that uvicorn attaches with terminal colours in it."""
    event.pop("color_message", None)
    return event


def _limit_tracebacks(a_second: int) -> Processor:
    """Return a processor that keeps the first tracebacks of each second, and replaces further ones by the error
    alone."""
    second_ends = 0.0
    left = 0

    def limit(_logger: object, _method: str, event: EventDict) -> EventDict:
        nonlocal second_ends, left
        if not event.get("exc_info"):
            return event
        now = time.monotonic()
        if now >= second_ends:
            second_ends, left = now + 1.0, a_second
        left -= 1
        if left < 0:
            given = event.pop("exc_info")
            error = sys.exception() if given is True else given[1] if isinstance(given, tuple) else given
            event["error"] = f"{type(error).__name__}: {error}"
        return event

    return limit


_traceback_as_field = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


def _printable(_logger: object, _method: str, event: EventDict) -> EventDict:
    return {_escaped(key): _escaped(value) if isinstance(value, str) else value for key, value in event.items()}


def _escaped(text: str) -> str:
    """Escape, as Python does, all characters that could end a line, move the cursor, or hide the text after them."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _write_traceback(file: TextIO, exc_info: ExcInfo) -> None:
    for block in traceback.format_exception(*exc_info):
        file.writelines(f"\n    {_escaped(line)}" if line else "" for line in block.split("\n"))


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, (KeyboardInterrupt, SystemExit)):
        sys.__excepthook__(kind, error or kind(), trace)
        return
    _log.critical("uncaught error", exc_info=(kind, error, trace))
