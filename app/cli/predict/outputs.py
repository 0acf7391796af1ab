"""Write predictions as a table, as JSON lines or as CSV, in constant memory."""

import csv
from abc import ABC, abstractmethod
from itertools import chain, islice
from typing import Any, TextIO

import orjson
from rich.cells import cell_len

from app.cli.predict.options import PrintFormat
from app.cli.predict.progress import one_line
from app.client import Prediction

_ROWS_THAT_SET_WIDTHS = 100


class Output(ABC):
    """`top_k` is how many labels it shows for a picture; None is all."""

    def __init__(self, stream: TextIO, top_k: int | None) -> None:
        self.top_k = top_k
        self._stream = stream

    @abstractmethod
    def write(self, name: str, prediction: Prediction) -> None: ...

    def flush(self) -> None:
        """Have what was written leave."""
        self._stream.flush()

    def close(self) -> None:
        self._stream.flush()


def open_output(output: PrintFormat, stream: TextIO, *, top_k: int | None) -> Output:
    """Return what writes in that format; without `top_k`, the table shows 3 labels, CSV one, and JSON all."""
    match output:
        case "table":
            return _Table(stream, top_k or 3)
        case "csv":
            return _Csv(stream, top_k or 1)
        case "jsonl":
            return _JsonLines(stream, top_k)


class _JsonLines(Output):
    """One object a line: `PredictionAnswer` of the service's interface, with `file` before it."""

    def write(self, name: str, prediction: Prediction) -> None:
        self._stream.write(orjson.dumps({"file": name, **json_fields(prediction)}).decode() + "\n")


class _Csv(Output):
    """file, model, version, label, probability; with a top_k above 1, label_2, probability_2 and so on."""

    def __init__(self, stream: TextIO, top_k: int) -> None:
        super().__init__(stream, top_k)
        self._columns = top_k
        self._writer = csv.writer(stream, lineterminator="\n")
        self._writer.writerow(csv_header(top_k))

    def write(self, name: str, prediction: Prediction) -> None:
        self._writer.writerow(csv_cells(name, prediction, self._columns))


class _Table(Output):
    """Aligned columns, as wide as the first rows need."""

    def __init__(self, stream: TextIO, top_k: int) -> None:
        super().__init__(stream, top_k)
        self._columns = top_k
        self._first: list[tuple[str, ...]] | None = [("file", "label", "probability", f"best {top_k}")]
        self._widths: list[int] = []

    def write(self, name: str, prediction: Prediction) -> None:
        best = ", ".join(f"{one_line(label)} {value:.4f}" for label, value in _best(prediction, self._columns))
        row = (one_line(name), one_line(prediction.label), f"{prediction.probability:.4f}", best)
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
    decision = {} if prediction.decision is None else {"decision": prediction.decision}
    return {
        **decision,
        "label": prediction.label,
        "probability": prediction.probability,
        "probabilities": prediction.probabilities,
        "model": {"name": model.name, "version": model.version},
    }


def csv_header(top_k: int) -> list[str]:
    """Return the names of the columns for `top_k` labels."""
    more = [(f"label_{rank}", f"probability_{rank}") for rank in range(2, top_k + 1)]
    return ["file", "model", "version", "label", "probability", *chain.from_iterable(more)]


def csv_cells(name: str, prediction: Prediction, top_k: int) -> list[str | float]:
    """Return a row under `csv_header`."""
    model = prediction.model
    best = _best(prediction, top_k)
    best += [("", "")] * (top_k - len(best))  # a model may have fewer labels
    return [name, model.name, model.version, *chain.from_iterable(best)]


def _best(prediction: Prediction, count: int) -> list[tuple[str, float | str]]:
    return list(islice(prediction.probabilities.items(), count))
