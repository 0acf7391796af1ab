"""Write predictions as a table, as JSON lines or as CSV, in constant memory."""

import csv
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain, islice
from typing import Any, TextIO

import orjson
from rich.cells import cell_len

from app.cli.predict.options import PrintFormat
from app.cli.predict.progress import one_line
from app.client import Prediction
from app.contract.answer_options import AnswerOptions

_ROWS_THAT_SET_WIDTHS = 100
_JUDGED = ("decision", "unfamiliar", "familiarity", "neighbours", "set")


class Output(ABC):
    """`options` say what it shows for a picture."""

    def __init__(self, stream: TextIO, options: AnswerOptions) -> None:
        self.options = options
        self._stream = stream

    @abstractmethod
    def write(self, name: str, prediction: Prediction) -> None: ...

    def flush(self) -> None:
        """Flush what was written."""
        self._stream.flush()

    def close(self) -> None:
        self._stream.flush()


def open_output(output: PrintFormat, stream: TextIO, options: AnswerOptions) -> Output:
    """Return a writer of that format. Without `top_k`, the table shows 3 labels, CSV one, and JSON all."""
    match output:
        case "table":
            return _Table(stream, options._replace(top_k=options.top_k or 3))
        case "csv":
            return _Csv(stream, options._replace(top_k=options.top_k or 1))
        case "jsonl":
            return _JsonLines(stream, options)


class _JsonLines(Output):
    """One object a line: `PredictionAnswer` of the service's interface, with `file` before it."""

    def write(self, name: str, prediction: Prediction) -> None:
        self._stream.write(orjson.dumps({"file": name, **json_fields(prediction)}).decode() + "\n")


class _Csv(Output):
    """The columns of `csv_header`."""

    def __init__(self, stream: TextIO, options: AnswerOptions) -> None:
        super().__init__(stream, options)
        self._writer = csv.writer(stream, lineterminator="\n")
        self._writer.writerow(csv_header(options))

    def write(self, name: str, prediction: Prediction) -> None:
        self._writer.writerow(csv_cells(name, prediction, self.options, _labels(prediction)))


class _Table(Output):
    """Aligned columns, as wide as the first rows need."""

    def __init__(self, stream: TextIO, options: AnswerOptions) -> None:
        super().__init__(stream, options)
        more = (["decision"] if options.asks_for_decision else []) + ([] if options.set is None else ["set"])
        self._first: list[tuple[str, ...]] | None = [("file", "label", "probability", f"best {options.top_k}", *more)]
        self._widths: list[int] = []

    def write(self, name: str, prediction: Prediction) -> None:
        options = self.options
        best = ", ".join(f"{one_line(label)} {value:.4f}" for label, value in _best(prediction, options.top_k))
        row: tuple[str, ...] = (one_line(name), one_line(prediction.label), f"{prediction.probability:.4f}", best)
        if options.asks_for_decision:
            row += (prediction.decision or "",)
        if options.set is not None:
            row += (", ".join(map(one_line, _labels(prediction))) or "-",)
        if self._first is None:
            self._write_row(row)
            return
        self._first.append(row)
        if len(self._first) > _ROWS_THAT_SET_WIDTHS:
            self._write_first(self._first)

    def close(self) -> None:
        if self._first is not None and len(self._first) > 1:
            self._write_first(self._first)
        super().close()

    def _write_first(self, rows: list[tuple[str, ...]]) -> None:
        self._first = None
        self._widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            self._write_row(row)

    def _write_row(self, row: tuple[str, ...]) -> None:
        cells = [cell + " " * (width - cell_len(cell)) for cell, width in zip(row, self._widths, strict=True)]
        self._stream.write("  ".join(cells).rstrip() + "\n")


def json_fields(prediction: Prediction) -> dict[str, Any]:
    """Return `PredictionAnswer` of the service's interface."""
    model = prediction.model
    judged = {name: value for name in _JUDGED if (value := getattr(prediction, name)) is not None}
    if prediction.neighbours is not None:
        judged["neighbours"] = [asdict(near, dict_factory=_without_none) for near in prediction.neighbours]
    return {
        **judged,
        "label": prediction.label,
        "probability": prediction.probability,
        "probabilities": prediction.probabilities,
        "model": {"name": model.name, "version": model.version},
    }


def _without_none(fields: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in fields if value is not None}


def csv_header(options: AnswerOptions) -> list[str]:
    """Return the names of the columns: label, probability, then label_2, probability_2 and so on up to `top_k`.

    After these come decision and set, a list as JSON, if they were requested.
    """
    more = [(f"label_{rank}", f"probability_{rank}") for rank in range(2, (options.top_k or 1) + 1)]
    header = ["file", "model", "version", "label", "probability", *chain.from_iterable(more)]
    return header + ["decision"] * options.asks_for_decision + ["set"] * (options.set is not None)


def csv_cells(name: str, prediction: Prediction, options: AnswerOptions, labels: Sequence[str]) -> list[str | float]:
    """Return a row under `csv_header`; `labels` are those of the set."""
    model = prediction.model
    best = _best(prediction, options.top_k)
    best += [("", "")] * ((options.top_k or 1) - len(best))  # a model may have fewer labels
    cells = [name, model.name, model.version, *chain.from_iterable(best)]
    cells += [prediction.decision or ""] * options.asks_for_decision
    return cells + [orjson.dumps(labels).decode()] * (options.set is not None)


def _best(prediction: Prediction, count: int | None) -> list[tuple[str, float | str]]:
    return list(islice(prediction.probabilities.items(), count or 1))


def _labels(prediction: Prediction) -> Sequence[str]:
    return () if prediction.set is None else prediction.set.labels
