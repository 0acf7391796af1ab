"""Options of the command `predict` that its parts share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from app.engines.registry import EngineChoice

PrintFormat = Literal["table", "jsonl", "csv"]
PartFormat = Literal["parquet", "csv", "jsonl"]
Output = Literal["table", "jsonl", "csv", "parquet"]

if TYPE_CHECKING:  # as the engines' own names
    EngineOrRay = str
else:
    EngineOrRay = Literal[EngineChoice, "ray"]


@dataclass(frozen=True)
class Service:
    """The service to ask, and how."""

    url: str
    api_key: str | None
    retries: int
    at_once: int
