"""The upper bound of HTTP: read the body, and answer fixed JSON of a real answer's size."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

_PROBABILITIES = {str(digit): 1.2345678e-07 for digit in range(9)}
_ANSWER = json.dumps(
    {
        "label": "9",
        "probability": 0.99991234,
        "probabilities": {**_PROBABILITIES, "9": 0.99991234},
        "model": {"name": "mnist", "version": 1},
    },
    separators=(",", ":"),
).encode()
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(_ANSWER)).encode())],
}
_BODY = {"type": "http.response.body", "body": _ANSWER}

Message = dict[str, Any]


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    if scope["type"] == "lifespan":
        return
    while (await receive()).get("more_body", False):
        pass
    await send(_START)
    await send(_BODY)
