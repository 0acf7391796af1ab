"""Parse the JSON of a request without letting it take more than it may.

Parsing holds the event loop up, and lists of numbers take many times the memory of their text, nested ones most. What
bounds both is the number of values, which is known before anything is parsed. It knows nothing of HTTP.
"""

from typing import Any

import orjson

from app.errors import MalformedRequest, UploadTooLarge


def parse_json(body: bytes | memoryview, *, max_values: int) -> Any:
    """Return what the text says. Raises MalformedRequest where it is no JSON, UploadTooLarge for too many values."""
    text = bytes(body)
    # Every value but the first of its list or object follows a comma, and that one its bracket. Commas in strings
    # count too: no picture in base64 holds any.
    if text.count(b",") + text.count(b"[") + text.count(b"{") > max_values:
        raise UploadTooLarge(
            f"The JSON holds more than {max_values:,} values. Send encoded pictures, binary tensors, or fewer pictures."
        )
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise MalformedRequest(f"The body is not JSON: {exc}.") from exc
