"""Classify by a running service instead of a model in this process."""

from collections.abc import Sequence

import numpy as np

from app.cli.predict.bulk.answers import Values, row_of
from app.client import Failure, Outcome, ServedModel, ServiceClient
from app.contract.answer_options import AnswerOptions
from app.errors import ModelNotNamed, OutputConflict


class ServiceClassifier:
    """A `Classify`; safe to call from several threads."""

    def __init__(self, client: ServiceClient, model: ServedModel, options: AnswerOptions) -> None:
        self._client = client
        self._model = model
        self._options = options
        self._asked = options._replace(top_k=None).given()  # the part shows the best

    def __call__(self, pictures: Sequence[bytes]) -> list[Values | Failure]:
        return [
            self._values(each) for each in self._client.predict_batch(pictures, model=self._model.name, **self._asked)
        ]

    def _values(self, outcome: Outcome) -> Values | Failure:
        if isinstance(outcome, Failure):
            return outcome
        check_version(outcome.model.version, self._model.name, self._model.version)
        labels = self._model.labels
        probabilities = np.array([outcome.probabilities[label] for label in labels], np.float32)
        members = None if outcome.set is None else [labels.index(label) for label in outcome.set.labels]
        return row_of(probabilities, self._options, outcome.decision, members)


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
