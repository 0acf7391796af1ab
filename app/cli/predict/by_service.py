"""Classify pictures by a running service."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from app.cli.predict.options import Service
from app.cli.predict.pipeline import Classify
from app.client import AsyncServiceClient, Outcome, Retry
from app.contract.answer_options import AnswerOptions
from app.errors import ModelNotNamed, ServiceError


@asynccontextmanager
async def service_at(service: Service, *, model: str | None, options: AnswerOptions) -> AsyncIterator[Classify]:
    """Open a client of the service, and yield a function that classifies pictures with it."""
    retry = Retry(retries=service.retries)
    async with AsyncServiceClient(
        service.url, api_key=service.api_key, retry=retry, max_connections=service.at_once
    ) as client:

        async def classify(pictures: Sequence[bytes]) -> list[Outcome]:
            try:
                return await client.predict_batch(pictures, model=model, **options.given())
            except ServiceError as exc:
                if exc.answered_code != ModelNotNamed.code:
                    raise
                raise ModelNotNamed([each.name for each in await client.models()]) from exc

        yield classify
