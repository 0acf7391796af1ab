"""Save and load checkpoints: all state of a training between two epochs, as one file.

A new checkpoint is written beside the old one, flushed to the disk, and renamed over it, so there is always a complete
one.
"""

import errno
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.system.atomic_write import atomic_write
from training.errors import CheckpointError
from training.fitting.history import Epoch

Arrays = Mapping[str, list[NDArray[Any]]]

_RECORD = "record"


@dataclass(frozen=True)
class Checkpoint:
    """`arrays`: by name, the network's variables, the averages, the optimizer's variables, the best epoch's weights.

    `best_epoch`, counted from 1, is None if none is kept; `seconds` is the training time so far.
    """

    epochs: tuple[Epoch, ...]
    seconds: float
    best_epoch: int | None
    arrays: Arrays


def write_checkpoint(file: Path, checkpoint: Checkpoint) -> None:
    """Replace the previous checkpoint, which stays if this fails. Raises CheckpointError."""
    record = {
        "epochs": [epoch.as_dict() for epoch in checkpoint.epochs],
        "seconds": checkpoint.seconds,
        "best_epoch": checkpoint.best_epoch,
    }
    arrays: dict[str, Any] = {_RECORD: np.array(json.dumps(record))}
    for name, group in checkpoint.arrays.items():
        arrays |= {f"{name}/{index}": array for index, array in enumerate(group)}
    try:
        with atomic_write(file, durable=True) as stream:
            np.savez(stream, **arrays)
    except OSError as exc:
        done = len(checkpoint.epochs)
        kept = f"The checkpoint of epoch {done - 1} stays" if done > 1 else "There is no checkpoint yet"
        reason = f"the disk of {file.parent} is full" if exc.errno == errno.ENOSPC else f"{file}: {exc.strerror or exc}"
        advice = "make room and run again with --resume" if exc.errno == errno.ENOSPC else "fix it, then use --resume"
        raise CheckpointError(f"Epoch {done} cannot be saved: {reason}. {kept}; {advice}.") from exc


def read_checkpoint(file: Path) -> Checkpoint | None:
    """Return the last checkpoint in the folder, None if there is none. Raises CheckpointError."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            record = json.loads(str(stored[_RECORD]))
            groups: dict[str, list[NDArray[Any]]] = {}
            for key in stored.files:  # in the order in which they were written
                if key != _RECORD:
                    groups.setdefault(key.partition("/")[0], []).append(stored[key])
        return Checkpoint(
            epochs=tuple(Epoch(**epoch) for epoch in record["epochs"]),
            seconds=record["seconds"],
            best_epoch=record["best_epoch"],
            arrays=groups,
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as exc:
        raise CheckpointError(f"The checkpoint {file} cannot be read: {exc}. Start without --resume.") from exc
