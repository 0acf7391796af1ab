"""The questions of `POST /predict` and `POST /predict/batch`: pictures in bodies and forms, answered as JSON."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from app.api.answers import AnswerWriter
from app.api.bodies.uploads import check_content_type, picture_of, pictures_of
from app.api.inference import Inference, Message, Question, Written
from app.api.per_model import PerModel
from app.contract.answer_options import AnswerOptions, AnswerSettings
from app.errors import ImageclassError, InferenceFailed
from app.serving.classifier import Classifier


class Questions:
    """Makes the questions of requests to one service."""

    def __init__(self, inference: Inference, settings: AnswerSettings = AnswerSettings()) -> None:  # noqa: B008 - frozen
        self.inference = inference
        self.limits = inference.limits
        self.writers = PerModel(inference.catalogue, lambda model: AnswerWriter(model.loaded.bundle, settings))

    def one(self, model: "Asked", options: AnswerOptions, content_type: str) -> "OnePicture":
        return OnePicture(self, model, options, content_type)

    def many(self, model: "Asked", options: AnswerOptions, content_type: str) -> "ManyPictures":
        return ManyPictures(self, model, options, content_type)


class Asked(NamedTuple):
    """The model that a request names. Without a name, it is the default model; without a version, the live one."""

    name: str | None = None
    version: str | None = None


class _PictureQuestion(Question):
    """What both ask: the body came as `content_type`, and the answer is written as `options` say."""

    def __init__(self, questions: Questions, model: Asked, options: AnswerOptions, content_type: str) -> None:
        self.model, self.version = model
        self._limits = questions.limits
        self._writer_of = questions.writers.of
        self._options = options
        self._content_type = content_type

    def output_of(self, model: Classifier) -> str | None:
        return self._writer_of(model).judge.output_for(self._options)


class OnePicture(_PictureQuestion):
    """One picture, as the field `file` of a form or as the whole body; answered as `PredictionAnswer`.

    Many requests can share such a question.
    """

    _head_is_checked = False

    def check_head(self) -> None:
        if not self._head_is_checked:
            check_content_type(self._content_type, "file")
            self._head_is_checked = True

    def read(self, body: bytes, _: Classifier) -> Message:
        limits = self._limits
        picture = picture_of(
            body,
            content_type=self._content_type,
            field="file",
            max_bytes=limits.max_upload_bytes,
            max_fields=limits.max_form_fields,
        )
        return [picture], None

    def write(self, model: Classifier, outcomes: Sequence[Any]) -> Written:
        return Written(self._writer_of(model).answer(outcomes[0], self._options))


class ManyPictures(_PictureQuestion):
    """Pictures as the fields `files` of a form; answered as `BatchAnswer`, in which each picture fails by itself."""

    fails_as_one = False
    _names: Sequence[str | None] = ()

    def check_head(self) -> None:
        check_content_type(self._content_type, "files", forms_only=True)

    def read(self, body: bytes, _: Classifier) -> Message:
        limits = self._limits
        files = pictures_of(
            body,
            content_type=self._content_type,
            field="files",
            max_pictures=limits.max_batch_pictures,
            max_fields=limits.max_form_fields,
        )
        self._names = [file.filename for file in files]
        return [file.data for file in files], None

    def write(self, model: Classifier, outcomes: Sequence[Any]) -> Written:
        writer = self._writer_of(model)
        entries = []
        for name, outcome in zip(self._names, outcomes, strict=True):
            if isinstance(outcome, ImageclassError):
                entries.append(orjson.dumps({"file": name, "error": str(outcome), "code": outcome.code}))
            else:
                entries.append(writer.entry(name, outcome, self._options))
        failures = [outcome for outcome in outcomes if isinstance(outcome, InferenceFailed)]
        return Written(b'{"predictions":[%b],"model":%b}' % (b",".join(entries), writer.model), failures=failures)
