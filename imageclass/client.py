"""Ask a running service from Python, with threads or on an event loop.

>>> with ServiceClient("http://127.0.0.1:8000", transport=service) as client:  # without `transport` in your program
...     answer = client.predict(picture)
...     print(answer.label, answer.probability, answer.model.name)
7 0.75 mnist

An event loop awaits the same methods:

>>> import asyncio
>>> async def ask() -> str:
...     async with AsyncServiceClient("http://127.0.0.1:8000", transport=service) as client:
...         return (await client.predict(picture)).label
>>> asyncio.run(ask())
'7'

Of many pictures each has an answer, or the reason why it has none:

>>> with ServiceClient("http://127.0.0.1:8000", transport=service) as client:
...     for outcome in client.predict_many([picture, b"no picture"]):
...         print(outcome.error if isinstance(outcome, Failure) else outcome.label)
7
This is not a picture.

It needs httpx and orjson alone, and knows the HTTP interface and nothing of models.
"""

from app.client import (
    AsyncServiceClient,
    Explanation,
    Failure,
    Familiarity,
    LabelSet,
    ModelReference,
    Neighbour,
    Options,
    Outcome,
    Prediction,
    Retry,
    ServedModel,
    ServiceClient,
)
from app.errors import ServiceError

__all__ = [
    "AsyncServiceClient",
    "Explanation",
    "Failure",
    "Familiarity",
    "LabelSet",
    "ModelReference",
    "Neighbour",
    "Options",
    "Outcome",
    "Prediction",
    "Retry",
    "ServedModel",
    "ServiceClient",
    "ServiceError",
]
