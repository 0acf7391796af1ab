"""Classify pictures with a model that is loaded in this process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import orjson

from app.api.answers import AnswerWriter
from app.cli.predict.pipeline import Classify
from app.client import Failure, Outcome
from app.client.answers import prediction
from app.contract.answer_options import AnswerOptions, AnswerSettings
from app.errors import ImageclassError
from app.main import load_from, open_catalogue
from app.metrics import Metrics
from app.serving.batcher import row_for
from app.settings import Settings


@asynccontextmanager
async def model_here(settings: Settings, options: AnswerOptions) -> AsyncIterator[Classify]:
    """Load the model that the settings name, and yield a function that classifies pictures with it."""
    async with open_catalogue(settings, load_from(settings, only=settings.model), Metrics()) as catalogue:
        classifier = catalogue.get(settings.model)
        answers = AnswerWriter(
            classifier.loaded.bundle, AnswerSettings(settings.min_probability, settings.false_alarms)
        )
        output = answers.judge.output_for(options)

        async def one(picture: bytes) -> Outcome:
            try:
                row = await row_for(lambda reply: classifier.put(picture, reply, output=output), classifier.withdraw)
            except ImageclassError as exc:
                return Failure(str(exc), exc.code)
            return prediction(orjson.loads(answers.answer(row, options)))

        async def classify(pictures: Sequence[bytes]) -> list[Outcome]:
            return await asyncio.gather(*map(one, pictures))

        yield classify
