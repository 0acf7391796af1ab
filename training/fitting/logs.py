"""Write a training's logs for other tools: `epochs.csv`, and events for TensorBoard."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.errors import OptionError
from training.fitting.history import Epoch, epochs_csv
from training.tensorflow import tf

_TENSORBOARD = {
    "loss": ("train", "loss"),
    "accuracy": ("train", "accuracy"),
    "validation_loss": ("validation", "loss"),
    "validation_accuracy": ("validation", "accuracy"),
    "learning_rate": ("train", "learning rate"),
    "images_per_second": ("train", "images per second"),
    "input_wait": ("train", "input wait"),
}
"""Each figure's run and tag: training and validation are two curves in one diagram."""


_SCALAR = 1  # DataClass.DATA_CLASS_SCALAR of tensorflow/core/framework/summary.proto


class Logs:
    """Writes into one folder, which it creates. Raises OptionError if it cannot."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise OptionError(f"--logs {folder} cannot be written: {exc.strerror}.") from exc
        runs = {run for run, _ in _TENSORBOARD.values()}
        self._writers = {run: tf.summary.create_file_writer(str(folder / run)) for run in sorted(runs)}
        # The event that `tf.summary.scalar` writes; that function needs TensorBoard itself.
        plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
        self._metadata = tf.compat.v1.SummaryMetadata(plugin_data=plugin, data_class=_SCALAR)

    def write(self, epochs: Sequence[Epoch]) -> None:
        """Write an event for the last of `epochs`, and a table of all. Raises OptionError."""
        for figure, value in epochs[-1].as_dict().items():
            if figure in _TENSORBOARD and value is not None:
                run, tag = _TENSORBOARD[figure]
                with self._writers[run].as_default(step=len(epochs)):
                    tf.summary.write(tag, np.float32(value), metadata=self._metadata)
        try:
            for writer in self._writers.values():
                writer.flush()
            (self._folder / "epochs.csv").write_text(epochs_csv(epochs), encoding="utf-8")
        except OSError as exc:
            raise OptionError(f"--logs {self._folder} cannot be written: {exc.strerror}.") from exc
