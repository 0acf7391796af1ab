"""Record the figures of a training's epochs."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True)
class Epoch:
    """The figures of one epoch; the validation figures are None without validation pictures.

    `learning_rate` is the last step's. `seconds` is the training's alone, `input_wait` the share of it in which the
    step waited for pictures; None with several replicas.
    """

    loss: float
    accuracy: float
    validation_loss: float | None
    validation_accuracy: float | None
    seconds: float
    learning_rate: float
    images_per_second: float
    input_wait: float | None

    def as_dict(self) -> dict[str, float | None]:
        return asdict(self)


def epochs_csv(epochs: Sequence[Epoch]) -> str:
    """Return one row per epoch, counted from 1; missing values are empty."""
    text = io.StringIO()
    rows = csv.DictWriter(text, ["epoch", *(field.name for field in fields(Epoch))], lineterminator="\n")
    rows.writeheader()
    for number, epoch in enumerate(epochs, start=1):
        rows.writerow({"epoch": number, **epoch.as_dict()})
    return text.getvalue()
