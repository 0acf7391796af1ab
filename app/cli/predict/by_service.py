"""Classify pictures by a running service."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from app.cli.predict.pipeline import Classify
from app.client import AsyncServiceClient, Outcome, Retry
from app.errors import ModelNotNamed, ServiceError


@asynccontextmanager
async def service_at(
    url: str, *, api_key: str | None, model: str | None, top_k: int | None, retries: int, at_once: int
) -> AsyncIterator[Classify]:
    """Open a client of the service at `url`, and give what classifies pictures with it."""
    async with AsyncServiceClient(
        url, api_key=api_key, retry=Retry(retries=retries), max_connections=at_once
    ) as client:

        async def classify(pictures: Sequence[bytes]) -> list[Outcome]:
            try:
                return await client.predict_batch(pictures, model=model, top_k=top_k)
            except ServiceError as exc:
                if exc.answered_code != ModelNotNamed.code:
                    raise
                raise ModelNotNamed([each.name for each in await client.models()]) from exc

        yield classify
