"""The log: one event is one line, whatever a client puts into it, and holds nothing that is not meant for it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HOSTILE = 'x\n2026-01-01 [info] forged\r\x1b[31mred\x9b1m\u2028\u202e"}\n{"event": "forged"}'
KEY = "key-of-nobody-else"
PICTURE = "bytes-of-a-picture"

LOG = f"""
import logging, sys, threading, warnings
import structlog
from app.telemetry import configure_logging, keep_standard_error_for_the_log

def configure():
    configure_logging(sys.argv[1], "debug")

hostile, key, picture = {HOSTILE!r}, {KEY!r}, {PICTURE!r}.encode()
log = structlog.stdlib.get_logger("test")

def fail(header, body):
    raise ValueError(hostile)

def failing():
    try:
        fail(key, picture)
    except ValueError as exc:
        return exc
"""


def run(code: str, log_format: str) -> list[str]:
    """The lines that another process logs."""
    done = subprocess.run(
        [sys.executable, "-c", LOG + code, log_format], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == ""
    return done.stderr.split("\n")[:-1]


def events(code: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(code, "json")]


def assert_printable(lines: list[str]) -> None:
    for line in lines:
        assert line.isprintable(), line
        assert not line.startswith(("2026-01-01", '{"event": "forged"'))


def test_a_value_can_neither_forge_nor_colour_a_line_of_json() -> None:
    (event,) = events("configure(); log.info('request refused', path=hostile, code='x')")
    assert (event["event"], event["path"], event["level"]) == ("request refused", HOSTILE, "info")
    lines = run("configure(); log.info('request refused', path=hostile)", "json")
    assert_printable(lines)


def test_a_value_can_neither_forge_nor_colour_a_line_of_text() -> None:
    lines = run("configure(); log.info('request refused', path=hostile); log.info(hostile)", "text")
    assert len(lines) == 2
    assert_printable(lines)


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_lines_of_other_libraries_are_held_to_the_same(log_format: str) -> None:
    code = "configure(); logging.getLogger('uvicorn.error').warning('from %s', hostile); warnings.warn(hostile)"
    lines = run(code, log_format)
    assert len(lines) == 2
    assert_printable(lines)


def test_a_traceback_is_one_field_of_json() -> None:
    (event,) = events("configure(); log.error('defect', request_id='order-42', exc_info=failing())")
    (exception,) = event["exception"]
    assert (exception["exc_type"], exception["exc_value"]) == ("ValueError", HOSTILE)
    assert exception["frames"][-1]["name"] == "fail"


def test_the_lines_of_a_traceback_in_text_are_all_set_in() -> None:
    first, *rest = run("configure(); log.error('defect', request_id='order-42', exc_info=failing())", "text")
    assert "order-42" in first
    assert rest[0] == "    Traceback (most recent call last):"
    assert all(line.startswith("    ") for line in rest)
    assert_printable([first, *rest])


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_traceback_tells_no_values(log_format: str) -> None:
    lines = run("configure(); log.error('defect', exc_info=failing())", log_format)
    assert "fail" in "".join(lines)
    assert KEY not in "".join(lines)
    assert PICTURE not in "".join(lines)


def test_of_a_flood_of_failures_all_are_told_and_some_with_their_traceback() -> None:
    found = events("configure()\nfor number in range(500): log.error('defect', number=number, exc_info=failing())")
    assert [event["number"] for event in found] == list(range(500))
    with_traceback = [event for event in found if "exception" in event]
    assert 10 <= len(with_traceback) < 500
    assert all(event["error"].startswith("ValueError: x") for event in found if "exception" not in event)


@pytest.mark.parametrize(
    "code",
    [
        "configure(); fail(key, picture)",
        "configure(); thread = threading.Thread(target=fail, args=(key, picture)); thread.start(); thread.join()",
    ],
)
def test_what_nobody_caught_is_an_event_too(code: str) -> None:
    (event,) = events(code)
    assert (event["event"], event["level"]) == ("uncaught error", "critical")
    assert KEY not in json.dumps(event)


def test_c_libraries_write_nothing_into_the_log_but_at_level_debug(data_folder: Path) -> None:
    damaged = f"""
import cv2, numpy
keep_standard_error_for_the_log(sys.argv[1], LEVEL)
data = bytearray(open({str(data_folder / "7-00000.png")!r}, "rb").read())
data[60] ^= 1
cv2.imdecode(numpy.frombuffer(data, numpy.uint8), cv2.IMREAD_COLOR)
log.info("ready")
"""
    (event,) = events(damaged.replace("LEVEL", "'info'"))
    assert event["event"] == "ready"
    assert len(run(damaged.replace("LEVEL", "'debug'"), "json")) > 1
