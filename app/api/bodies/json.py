"""Parse the JSON of a request within bounded time and memory.

Parsing blocks the event loop, and lists of numbers take many times the memory of their text, nested ones most. The
number of values bounds both, and is counted before parsing. This module knows nothing of HTTP.
"""

from typing import Any

import orjson

from app.errors import MalformedRequest, UploadTooLarge


def parse_json(body: bytes | memoryview, *, max_values: int) -> Any:
    """Return the parsed value. Raises MalformedRequest if it is no JSON, UploadTooLarge for too many values."""
    text = bytes(body)
    # Every value but the first of its list or object follows a comma, and the first follows a bracket. Commas in
    # strings count too: a picture in base64 holds none, and a data URL holds one.
    if len(text) > max_values and text.count(b",") + text.count(b"[") + text.count(b"{") > max_values:
        raise UploadTooLarge(
            f"The JSON holds more than {max_values:,} values. Send encoded pictures, binary tensors, or fewer pictures."
        )
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise MalformedRequest(f"The body is not JSON: {exc}.") from exc
