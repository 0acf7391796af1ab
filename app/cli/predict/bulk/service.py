"""Classify by a running service, in place of a model in this process."""

from collections.abc import Sequence

import numpy as np

from app.cli.predict.bulk.answers import Values
from app.client import Failure, Outcome, ServedModel, ServiceClient
from app.errors import ModelNotNamed, OutputConflict


class ServiceClassifier:
    """A `Classify`; safe to call from several threads."""

    def __init__(self, client: ServiceClient, model: ServedModel) -> None:
        self._client = client
        self._model = model

    def __call__(self, pictures: Sequence[bytes]) -> list[Values | Failure]:
        return [self._values(each) for each in self._client.predict_batch(pictures, model=self._model.name)]

    def _values(self, outcome: Outcome) -> Values | Failure:
        if isinstance(outcome, Failure):
            return outcome
        check_version(outcome.model.version, self._model.name, self._model.version)
        return np.array([outcome.probabilities[label] for label in self._model.labels], np.float32)


def check_version(answers: int, model: str, began: int) -> None:
    """Raise OutputConflict if the service answers with another version than the job began with."""
    if answers != began:
        raise OutputConflict(
            f"The service answers with version {answers} of {model}; the job began with version {began}. Pin that one "
            "and run the command again with --resume, or name another folder."
        )


def served(client: ServiceClient, name: str | None) -> ServedModel:
    """Return the model of that name, or the only one. Raises ServiceError or ModelNotNamed."""
    if name is not None:
        return client.model(name)
    models = client.models()
    if len(models) != 1:
        raise ModelNotNamed([each.name for each in models])
    return models[0]
