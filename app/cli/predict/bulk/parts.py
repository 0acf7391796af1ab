"""Write answers as a part file: Parquet, CSV or JSON lines. The same answers always give the same bytes."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import TextIOWrapper
from itertools import repeat
from typing import Any, BinaryIO

import numpy as np
import orjson

from app.cli.predict.bulk.answers import DECISIONS, Answer, Values
from app.cli.predict.options import PartFormat
from app.cli.predict.outputs import csv_cells, csv_header, json_fields
from app.client import Failure, ModelReference, Prediction
from app.contract.answer_options import AnswerOptions
from app.errors import EngineUnavailable
from app.system.invocation import installs


@dataclass(frozen=True)
class Layout:
    """What the rows of every part hold: answers as `options` say, or `features` instead."""

    format: PartFormat
    model: ModelReference
    labels: tuple[str, ...]
    options: AnswerOptions
    features: bool = False

    def part_name(self, number: int) -> str:
        return f"part-{number:05}.{self.format}"

    def write(self, answers: Sequence[Answer], stream: BinaryIO) -> None:
        """Write a part. Raises OSError."""
        if self.format == "parquet":
            _write_parquet(self, answers, stream)
            return
        text = TextIOWrapper(stream, encoding="utf-8", newline="")
        (_write_csv if self.format == "csv" else _write_json_lines)(self, answers, text)
        text.detach()

    def best(self, values: Values) -> Any:
        """Return the labels to show of each row of (N, K) probabilities, as indices (N, k): all, or the best first."""
        if self.options.top_k is None:
            return np.broadcast_to(np.arange(values.shape[1]), values.shape)
        return np.argsort(-values, axis=1, kind="stable")[:, : self.options.top_k]

    def judged(self, rows: Values) -> tuple[Values, list[str] | None, list[list[str]] | None]:
        """Return the probabilities (N, K) of rows as `row_of` makes them, their decisions, and the labels of sets.

        Decisions and sets are None if they were not requested.
        """
        classes = len(self.labels)
        probabilities, more = rows[:, :classes], rows[:, classes:]
        decisions = sets = None
        if self.options.asks_for_decision:
            decisions = [DECISIONS[int(place)] for place in more[:, 0]]
        if self.options.set is not None:
            order = np.argsort(-probabilities, axis=1, kind="stable")
            members = more[:, -classes:]
            sets = [[self.labels[each] for each in best if of[each]] for best, of in zip(order, members, strict=True)]
        return probabilities, decisions, sets


def check_format(output: PartFormat) -> None:
    """Raise EngineUnavailable if the library that writes the format is not installed."""
    if output == "parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as exc:
            raise EngineUnavailable(
                f"Parquet needs pyarrow, which is not installed: {installs('parquet')}. CSV and JSON lines need "
                "no package."
            ) from exc


def _write_json_lines(layout: Layout, answers: Sequence[Answer], text: TextIOWrapper) -> None:
    for answer, prediction, labels in _predictions(layout, answers):
        fields: dict[str, Any] = {"file": answer.file}
        if isinstance(answer.outcome, Failure):
            fields |= {"error": answer.outcome.error, "code": answer.outcome.code}
        elif prediction is not None:
            fields |= {} if layout.options.set is None else {"set": labels}
            fields |= json_fields(prediction)
        else:
            fields |= {"features": _numbers(answer.outcome)} | _model(layout)
        text.write(orjson.dumps(fields | {"sha256": answer.sha256}).decode() + "\n")


def _write_csv(layout: Layout, answers: Sequence[Answer], text: TextIOWrapper) -> None:
    writer = csv.writer(text, lineterminator="\n")
    size = next((len(each.outcome) for each in answers if not isinstance(each.outcome, Failure)), 0)
    features = [f"feature_{index}" for index in range(size)]
    header = ["file", "model", "version", *features] if layout.features else csv_header(layout.options)
    writer.writerow([*header, "sha256", "error", "code"])
    for answer, prediction, labels in _predictions(layout, answers):
        outcome, model = answer.outcome, layout.model
        if isinstance(outcome, Failure):
            cells: Sequence[Any] = [answer.file, model.name, model.version, *[""] * (len(header) - 3)]
            reason = [outcome.error, outcome.code]
        else:
            reason = ["", ""]
            if prediction is not None:
                cells = csv_cells(answer.file, prediction, layout.options, labels)
            else:
                cells = [answer.file, model.name, model.version, *_numbers(outcome)]
        writer.writerow([*cells, answer.sha256, *reason])


def _predictions(
    layout: Layout, answers: Sequence[Answer]
) -> Iterator[tuple[Answer, Prediction | None, Sequence[str]]]:
    """Yield each answer with its prediction in the client's form, None for a failure or for features, and its set."""
    values = _values(answers)
    if layout.features or not len(values):
        yield from ((answer, None, ()) for answer in answers)
        return
    values, decisions, sets = layout.judged(values)
    # CSV shows the best alone; the order of JSON's labels is that of the service.
    best = (layout if layout.format == "jsonl" else _with_best(layout)).best(values)
    said = zip(decisions or repeat(None), sets or repeat(()), strict=False)
    rows = iter(zip(values.argmax(axis=1).tolist(), best.tolist(), _numbers(values), said, strict=False))
    for answer in answers:
        if isinstance(answer.outcome, Failure):
            yield answer, None, ()
            continue
        top, shown, numbers, (decision, labels) = next(rows)
        probabilities = {layout.labels[index]: numbers[index] for index in shown}
        yield answer, Prediction(layout.labels[top], numbers[top], probabilities, layout.model, decision), labels


def _with_best(layout: Layout) -> Layout:
    return layout if layout.options.top_k else replace(layout, options=layout.options._replace(top_k=1))


def _write_parquet(layout: Layout, answers: Sequence[Answer], stream: BinaryIO) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    failures = [each.outcome if isinstance(each.outcome, Failure) else None for each in answers]
    is_there = np.array([failure is None for failure in failures])
    values = _values(answers)
    count = len(answers)

    def scattered(rows: Any, kind: Any) -> Any:
        """Return a column with these rows for the pictures that have an answer, and null for the others."""
        if len(rows) == count:
            return pa.array(rows, kind)
        place = np.cumsum(is_there) - 1
        return pa.array(rows, kind).take(pa.array(place, mask=~is_there))

    def lists(rows: Any, of: Any) -> Any:
        """Return a column of lists: row i holds `rows[i]`."""
        sizes = np.where(is_there, rows.shape[1], 0)
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
        # A null in the offsets makes a null list.
        marked = pa.array(offsets, mask=np.concatenate([~is_there, [False]]))
        return pa.ListArray.from_arrays(marked, of(rows.reshape(-1)))

    columns = {
        "file": pa.array([each.file for each in answers], pa.string()),
        "sha256": pa.array([each.sha256 for each in answers], pa.string()),
        "model": pa.array([layout.model.name] * count, pa.string()),
        "version": pa.array([layout.model.version] * count, pa.int32()),
    }
    if layout.features:
        columns["features"] = lists(values, lambda flat: pa.array(flat, pa.float32()))
    else:
        values, decisions, sets = layout.judged(values) if len(values) else (values, None, None)
        best = layout.best(values)
        top = values.argmax(axis=1) if len(values) else np.zeros(0, int)
        labels = pa.array(layout.labels, pa.string())
        columns["label"] = scattered(labels.take(pa.array(top, pa.int32())), pa.string())
        columns["probability"] = scattered(values[np.arange(len(values)), top], pa.float32())
        columns["labels"] = lists(best, lambda flat: labels.take(pa.array(flat, pa.int32())))
        columns["probabilities"] = lists(
            np.take_along_axis(values, best, axis=1), lambda flat: pa.array(flat, pa.float32())
        )
        if layout.options.asks_for_decision:
            columns["decision"] = scattered(decisions or [], pa.string())
        if layout.options.set is not None:
            columns["set"] = scattered(sets or [], pa.list_(pa.string()))
    columns["error"] = pa.array([None if each is None else each.error for each in failures], pa.string())
    columns["code"] = pa.array([None if each is None else each.code for each in failures], pa.string())
    pq.write_table(pa.table(columns), stream, compression="zstd")


def _values(answers: Sequence[Answer]) -> Values:
    """Return the values of the pictures that have an answer, (N, K)."""
    rows = [each.outcome for each in answers if not isinstance(each.outcome, Failure)]
    return np.stack(rows) if rows else np.zeros((0, 0), np.float32)


def _numbers(values: Values) -> Any:
    """Return numbers with the fewest digits that read back as the same float32, as the service writes them."""
    return orjson.loads(orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY))


def _model(layout: Layout) -> dict[str, Any]:
    return {"model": {"name": layout.model.name, "version": layout.model.version}}
