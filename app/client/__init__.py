"""Ask a running service from Python, with threads or on an event loop.

    with ServiceClient("http://127.0.0.1:8000") as client:
        print(client.predict(Path("seven.png").read_bytes()).label)

It knows the HTTP interface, and nothing of models or pictures.
"""

from app.client.answers import (
    Explanation,
    Failure,
    Familiarity,
    LabelSet,
    ModelReference,
    Neighbour,
    Outcome,
    Prediction,
    ServedModel,
)
from app.client.calls import Options
from app.client.order import in_order
from app.client.retry import Retry
from app.client.service import BATCH_BYTES, BATCH_SIZE, AsyncServiceClient, ServiceClient

__all__ = [
    "BATCH_BYTES",
    "BATCH_SIZE",
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
    "in_order",
]
