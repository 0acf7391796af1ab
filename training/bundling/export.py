"""Write a bundle into the model store: build it in a hidden folder, check it, and rename it into place.

Until the rename the bundle has a name that no reader looks at, so a crash leaves nothing that could be loaded.
"""

import errno
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.contract.bundle import (
    GOLDEN_EXPECTED,
    GOLDEN_FOLDER,
    MANIFEST,
    METRICS,
    MODEL_CARD,
    GoldenPicture,
    Manifest,
    Signature,
    digests,
    expected_npz,
    oldest_schema,
)
from app.contract.header import read_header
from app.contract.preprocessing import Image, PreprocessingSpec, preprocess
from app.contract.store import NAME_RULE, ModelStore, is_model_name
from app.contract.trust import TRUST, Trust
from app.engines.engine import Engine
from app.engines.loading import LoadedModel, load_model, open_engine
from app.engines.proof import MAX_PROBABILITY_DIFFERENCE
from app.engines.registry import ENGINES
from app.engines.tensorflow import TensorFlowEngine, open_tensorflow
from app.errors import BundleTampered, EngineUnavailable
from app.system.atomic_write import make_durable
from app.system.cores import available_cores
from training.data.dataset import Picture
from training.data.split import write_split_file
from training.errors import OptionError, PublishError
from training.model.saved_model import other_outputs, save
from training.tensorflow import keras

REPORT_FILE = "report.html"
_GOLDEN_PICTURES = 16
_GOLDEN_BYTES = 1_000_000
_LIBRARIES = (
    *(library for engine in ENGINES.values() for library in engine.libraries),
    "opencv-python-headless",
    "numpy",
)


class BundleDraft:
    """The draft of a model's next version, in a hidden `folder` whose path ends like the bundle's: NAME/VERSION.

    Call `save`, evaluate the SavedModel, then call `publish`.
    """

    def __init__(
        self, store: ModelStore, building: Path, name: str, labels: tuple[str, ...], preprocessing: PreprocessingSpec
    ) -> None:
        self.name = name
        self.version = (store.versions(name) or [0])[-1] + 1
        self.folder = ModelStore(building).path(name, self.version)
        self.signature = Signature.of(preprocessing, labels)
        self._store = store
        self._labels = labels
        self._preprocessing = preprocessing
        self._golden: tuple[GoldenPicture, ...] = ()
        self._engine: Engine | None = None

    def save(self, network: keras.Model, golden: Sequence[Picture]) -> Engine:
        """Write `network` and golden pictures, and return the SavedModel as reopened on the engine that will serve it.

        This is the fastest engine whose answers to the golden pictures agree with TensorFlow's. The engine is closed
        with the draft. Raises PublishError if TensorFlow cannot write the network.
        """
        self.folder.mkdir(parents=True)
        self.signature = Signature.of(self._preprocessing, self._labels, other_outputs(network))
        save(network, self.folder, self.signature)
        self._golden = _write_golden(self.folder, golden)
        tensorflow = open_tensorflow(self.folder, self.signature, threads=available_cores())
        self._engine = tensorflow
        images, expected = _write_expected(self.folder, self._preprocessing, self._golden, tensorflow, self.signature)
        for name in ENGINES:
            with suppress(EngineUnavailable, BundleTampered):
                engine = open_engine(name, self.folder, self.signature, threads=available_cores())
                if np.abs(engine.predict(images) - expected).max() <= MAX_PROBABILITY_DIFFERENCE:
                    self._engine = engine
                    tensorflow.close()
                    break
                engine.close()
        return self._engine

    def publish(
        self,
        *,
        metrics: Mapping[str, Any],
        card: str,
        report: str | None,
        training: dict[str, Any],
        split: dict[str, Any],
        split_csv: str,
        held_back: str | None = None,
        min_probability: float | None = None,
        trust: Trust | None = None,
        false_alarms: float | None = None,
    ) -> LoadedModel:
        """Write the other files, check the bundle, rename it into place, and return it as the service will load it.

        With `held_back`, a reason, no service takes the version until it is promoted or pinned. With `min_probability`,
        services call answers below it unsure. With `false_alarms`, services report unfamiliar pictures by `trust`, with
        that share of familiar pictures as false alarms. Raises PublishError if another run took the version, and a
        BundleError if the bundle fails its check.
        """
        if report is not None:
            (self.folder / REPORT_FILE).write_text(report, encoding="utf-8")
        (self.folder / METRICS).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
        (self.folder / MODEL_CARD).write_text(card, encoding="utf-8")
        write_split_file(self.folder, split_csv)
        if trust is not None:
            (self.folder / TRUST).write_bytes(trust.to_npz())
        manifest = Manifest(
            schema_version=oldest_schema(self.signature, self._preprocessing, min_probability),
            name=self.name,
            version=self.version,
            created_at=datetime.now(UTC).replace(microsecond=0),
            labels=self._labels,
            preprocessing=self._preprocessing,
            signature=self.signature,
            metrics=_headline(metrics),
            training=training,
            split=split,
            git_commit=_git_commit(),
            libraries={library: library_version(library) for library in _LIBRARIES},
            min_probability=min_probability,
            false_alarms=None if trust is None else false_alarms,
            golden=self._golden,
            files=digests(self.folder),
        )
        (self.folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        load_model(self.folder).engine.close()
        make_durable(self.folder)
        final = self._store.path(self.name, self.version)
        try:
            self._store.publish(self.folder, self.name, self.version, held_back=held_back)
        except OSError as exc:
            if exc.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise PublishError(
                    f"{final} appeared while this run was exporting: another run published that version. Run the "
                    "command again."
                ) from exc
            raise
        return load_model(final)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()


@contextmanager
def open_draft(
    store: ModelStore, name: str, *, labels: tuple[str, ...], preprocessing: PreprocessingSpec
) -> Iterator[BundleDraft]:
    """Begin the next version of `name`. If the draft is not published, it is removed at the end of the block.

    Raises PublishError if the store cannot be written, at the beginning or in the block.
    """
    with (
        _plain_disk_errors(store.root / name),
        _building_folder(store, name) as building,
        closing(BundleDraft(store, building, name, labels, preprocessing)) as draft,
    ):
        yield draft


def check_can_publish(store: ModelStore, name: str) -> None:
    """Check before the training what would otherwise fail after it. Raises OptionError or PublishError."""
    if not is_model_name(name):
        raise OptionError(f"'{name}' is not a model name. A name has {NAME_RULE}.")
    with _plain_disk_errors(store.root / name), _building_folder(store, name):
        pass


@contextmanager
def _building_folder(store: ModelStore, name: str) -> Iterator[Path]:
    """Make a hidden folder beside the versions, on the same disk, and remove it with its content at the end."""
    home = store.root / name
    home.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".building-", dir=home))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not any(home.iterdir()):
            home.rmdir()


@contextmanager
def _plain_disk_errors(home: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno == errno.ENOSPC:
            raise PublishError(
                f"The disk of {home} is full. Nothing was published. Free some space, and run the command again."
            ) from exc
        raise PublishError(f"{home} cannot be written: {exc.strerror or exc}. Nothing was published.") from exc


def _write_golden(folder: Path, pictures: Sequence[Picture]) -> tuple[GoldenPicture, ...]:
    """Write golden pictures as their original bytes: the first one, and more within a limit on their size."""
    (folder / GOLDEN_FOLDER).mkdir()
    golden: list[GoldenPicture] = []
    size = 0
    for picture in pictures[:_GOLDEN_PICTURES]:
        encoded = picture.encoded()
        size += len(encoded)
        if golden and size > _GOLDEN_BYTES:
            break
        file = f"{GOLDEN_FOLDER}/{len(golden):02}.{read_header(encoded).format}"
        (folder / file).write_bytes(encoded)
        golden.append(GoldenPicture(file=file, label=picture.label))
    return tuple(golden)


def _write_expected(
    folder: Path,
    spec: PreprocessingSpec,
    golden: Sequence[GoldenPicture],
    engine: TensorFlowEngine,
    signature: Signature,
) -> tuple[Image, NDArray[np.float32]]:
    images = np.stack([preprocess((folder / picture.file).read_bytes(), spec) for picture in golden])
    outputs = engine.outputs(images)
    probabilities = outputs.pop(signature.output.name)
    (folder / GOLDEN_EXPECTED).write_bytes(expected_npz(images, probabilities, outputs))
    return images, probabilities


def _headline(metrics: Mapping[str, Any]) -> dict[str, int | float]:
    headline: dict[str, int | float] = {
        f"{split}.{figure}": metrics[split][figure]
        for split in ("train", "validation", "test")
        if metrics[split]
        for figure in ("accuracy", "macro_recall", "loss")
    }
    return {**headline, "fit_seconds": metrics["fit_seconds"], "parameters": metrics["parameters"]}


def _git_commit() -> str | None:
    """Return the commit of the code that trains, with "+changes" if it was edited; None outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", "app", "training") else "")
    except (OSError, subprocess.SubprocessError):
        return None
