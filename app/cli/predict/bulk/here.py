"""Classify by a model that is loaded in this process, on one core: each core has a process of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from app.cli.predict.bulk.answers import Values, row_of
from app.client import Failure
from app.contract.answer_options import AnswerOptions, AnswerSettings
from app.contract.bundle import FEATURES, Bundle
from app.contract.header import read_header
from app.contract.judgement import Judge
from app.contract.limits import check_size
from app.contract.live import live_bundle
from app.contract.preprocessing import preprocess, use_one_thread_per_picture
from app.engines.engine import PrecisionChoice
from app.engines.loading import load_model
from app.engines.proof import check_batch_size, proven_outputs
from app.engines.registry import EngineChoice
from app.errors import BundleIncompatible, BundleNotFound, ImageError, ModelNotNamed
from app.settings import Settings

BATCH = 16
"""Twice as many gain 5 % with a small network and nothing with a large one, for which each further picture takes 20
MB."""


@dataclass(frozen=True)
class ModelHere:
    """A version of a model, how it runs, and which pictures it takes; small, so that it can be sent to any process."""

    bundle: Path
    engine: EngineChoice
    precision: PrecisionChoice
    options: AnswerOptions
    settings: AnswerSettings
    features: bool
    output: str | None
    max_pixels: int
    accepted_formats: frozenset[str]

    @classmethod
    def of(cls, settings: Settings, bundle: Bundle, options: AnswerOptions, *, features: bool) -> Self:
        """Return a reference to the version, with the settings under which it runs.

        Raises MalformedRequest if the bundle lacks the data that the options need.
        """
        of_answers = AnswerSettings(settings.min_probability, settings.false_alarms)
        needed = Judge(bundle, of_answers).output_for(options)
        return cls(
            # Another process may have another working folder.
            bundle=bundle.path.resolve(),
            engine=settings.engine,
            precision=settings.precision,
            options=options,
            settings=of_answers,
            features=features,
            output=FEATURES if features else needed if options.asks_for_decision else None,
            max_pixels=settings.max_pixels,
            accepted_formats=frozenset(settings.accepted_formats.split(",")),
        )

    def open(self) -> "Classifier":
        """Load the model. Raises a BundleError or EngineUnavailable."""
        return Classifier(self)


class Classifier:
    """A loaded model; a `Classify`."""

    def __init__(self, model: ModelHere) -> None:
        use_one_thread_per_picture()
        self._model = model
        loaded = load_model(model.bundle, engine=model.engine, threads=1, precision=model.precision)
        self._engine = loaded.engine
        self._probabilities = loaded.bundle.manifest.signature.output.name
        self._judge = Judge(loaded.bundle, model.settings)
        self._whole = None if model.output is None else proven_outputs(loaded.bundle, self._engine)
        self._spec = loaded.bundle.manifest.preprocessing
        self._engine.prepare(BATCH)
        check_batch_size(loaded.bundle, self._engine, BATCH, max_difference=loaded.max_probability_difference)
        # Every batch is of one size, the last one filled up: the answer to a picture must not depend on its neighbours.
        self._batch = np.zeros((BATCH, *self._spec.shape), np.uint8)

    def __call__(self, pictures: Sequence[bytes]) -> list[Values | Failure]:
        outcomes: list[Values | Failure] = []
        for start in range(0, len(pictures), BATCH):
            outcomes += self._answer(pictures[start : start + BATCH])
        return outcomes

    def _answer(self, pictures: Sequence[bytes]) -> list[Values | Failure]:
        outcomes: list[Values | Failure | int] = []
        count = 0
        for data in pictures:
            try:
                header = read_header(data, accepted=self._model.accepted_formats)
                check_size(data, header, max_pixels=self._model.max_pixels)
                self._batch[count] = preprocess(data, self._spec, header=header)
            except ImageError as exc:
                outcomes.append(Failure(str(exc), exc.code))
            else:
                outcomes.append(count)
                count += 1
        rows = self._rows(count) if count else []
        return [rows[each] if isinstance(each, int) else each for each in outcomes]

    def _rows(self, count: int) -> list[Values]:
        """Return the values of the first pictures of the batch."""
        if self._whole is None:
            outputs = {self._probabilities: self._engine.predict(self._batch)}
        else:
            outputs = self._whole.outputs(self._batch)
        if self._model.features:
            return list(outputs[FEATURES])
        options, probabilities, features = self._model.options, outputs[self._probabilities], outputs.get(FEATURES)
        if not options.asks_for_decision and options.set is None:
            return list(probabilities)
        rows = []
        for row in range(count):
            found = self._judge.judge(probabilities[row], None if features is None else features[row], options)
            rows.append(row_of(probabilities[row], options, found.decision, found.set))
        return rows

    def close(self) -> None:
        self._engine.close()


def model_named(settings: Settings) -> Bundle:
    """Return the live version of the model that the settings name. Raises a BundleError or ModelNotNamed."""
    from app.main import open_store  # FastAPI and the rest: not for the processes that classify

    store = open_store(settings)
    names = [settings.model] if settings.model else store.names()
    if len(names) != 1:
        raise ModelNotNamed(names) if names else BundleNotFound(f"The model store {store.root} holds no model.")
    store.newest(names[0])  # its error names the models that exist
    found = live_bundle(store, names[0])
    if found is None:
        raise store.all_held_back(names[0])
    return found


def version_named(settings: Settings, name: str, version: int) -> Path:
    """Return the path of a version of the store, which is pulled if that is a bucket. Raises an ImageclassError."""
    from app.main import mirror_of, store_of

    mirror = mirror_of(settings)
    return store_of(settings).path(name, version) if mirror is None else mirror.fetch(name, version)


def check_has_features(bundle: Bundle) -> None:
    """Raise BundleIncompatible if the network gives no features."""
    if FEATURES not in {tensor.name for tensor in bundle.manifest.signature.other_outputs}:
        raise BundleIncompatible(
            f"{bundle.name} version {bundle.version} has no output '{FEATURES}': its network returns only "
            "probabilities. Leave out --features, or name a model whose bundle has that output."
        )
