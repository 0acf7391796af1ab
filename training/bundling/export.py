"""Write a bundle into the model store: build it beside its place, prove it, and rename it into place.

Until the rename the bundle has a name that no reader looks at, so a crash leaves nothing that could be loaded.
"""

import errno
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
)
from app.contract.header import read_header
from app.contract.preprocessing import PreprocessingSpec, preprocess
from app.contract.store import NAME_RULE, ModelStore, is_model_name
from app.engines.engine import Engine
from app.engines.loading import LoadedModel, load_model
from app.engines.registry import ENGINES
from app.engines.tensorflow import import_tensorflow, open_tensorflow
from app.system.cores import available_cores
from training.data.dataset import Picture, Split
from training.data.split import write_split_file
from training.errors import OptionError, PublishError

REPORT_FILE = "report.html"
_GOLDEN_PICTURES = 16
_GOLDEN_BYTES = 1_000_000
_LIBRARIES = (
    *(library for engine in ENGINES.values() for library in engine.libraries),
    "opencv-python-headless",
    "numpy",
)


@dataclass(frozen=True)
class Measured:
    """`metrics` becomes metrics.json; `probabilities` (N, K) of each split are what they were made of."""

    metrics: dict[str, Any]
    probabilities: Mapping[Split, NDArray[np.float32]]


@dataclass(frozen=True)
class Report:
    """`metrics` is added to metrics.json; `page` becomes report.html."""

    metrics: Mapping[str, Any]
    page: str


@dataclass(frozen=True)
class Contents:
    """What goes into a bundle beside the network: everything `Manifest` and the files for people need."""

    labels: tuple[str, ...]
    preprocessing: PreprocessingSpec
    golden: Sequence[Picture]
    training: dict[str, Any]
    split: dict[str, Any]
    split_csv: str
    measure: Callable[[Engine], Measured]
    """Measures the reopened SavedModel."""
    card: Callable[[int, Mapping[str, Any]], str]
    """Returns MODEL_CARD.md from the version and the metrics."""
    report: Callable[[Path, int, Engine, Measured], Report] | None = None
    """Looks further at the SavedModel in the folder, of that version."""


def check_can_publish(store: ModelStore, name: str) -> None:
    """Raise OptionError or PublishError now for what would only show after the training."""
    if not is_model_name(name):
        raise OptionError(f"'{name}' is not a model name. A name has {NAME_RULE}.")
    with _plain_disk_errors(store.root / name), _building_folder(store, name):
        pass


def publish(network: Any, contents: Contents, store: ModelStore, name: str) -> LoadedModel:
    """Write `network` (a `keras.Model`) as the next version of `name`, and return it as the service will load it.

    Raises PublishError where it cannot be written, and a BundleError where what was written does not prove true.
    """
    with _plain_disk_errors(store.root / name), _building_folder(store, name) as building:
        version = (store.versions(name) or [0])[-1] + 1
        folder = ModelStore(building).path(name, version)  # a bundle checks that it lies where its manifest says
        folder.mkdir(parents=True)
        signature = Signature.of(contents.preprocessing, contents.labels)
        save(network, folder, signature)
        golden = _write_golden(folder, contents)
        engine = open_tensorflow(folder, signature, threads=available_cores())
        _write_expected(folder, contents.preprocessing, golden, engine)
        measured = contents.measure(engine)
        metrics = measured.metrics
        if contents.report is not None:
            report = contents.report(folder, version, engine, measured)
            metrics = {**metrics, **report.metrics}
            (folder / REPORT_FILE).write_text(report.page, encoding="utf-8")
        (folder / METRICS).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
        (folder / MODEL_CARD).write_text(contents.card(version, metrics), encoding="utf-8")
        write_split_file(folder, contents.split_csv)
        manifest = Manifest(
            name=name,
            version=version,
            created_at=datetime.now(UTC).replace(microsecond=0),
            labels=contents.labels,
            preprocessing=contents.preprocessing,
            signature=signature,
            metrics=_headline(metrics),
            training=contents.training,
            split=contents.split,
            git_commit=_git_commit(),
            libraries={library: library_version(library) for library in _LIBRARIES},
            golden=golden,
            files=digests(folder),
        )
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        load_model(folder).engine.close()
        _sync(folder)
        final = store.path(name, version)
        try:
            folder.rename(final)
        except OSError as exc:
            if exc.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise PublishError(
                    f"{final} appeared while this run was exporting: another run took the version. Run again."
                ) from exc
            raise
        return load_model(final)


@contextmanager
def _building_folder(store: ModelStore, name: str) -> Iterator[Path]:
    """Make a hidden folder beside the versions, on the same disk, and remove it again with what is left in it."""
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
            raise PublishError(f"The disk of {home} is full. Nothing was published; make room and run again.") from exc
        raise PublishError(f"{home} cannot be written: {exc.strerror or exc}. Nothing was published.") from exc


def save(network: Any, folder: Path, signature: Signature) -> None:
    """Write the SavedModel: `signature.input` uint8 in, `signature.output` float32 out, batch size free."""
    tf = import_tensorflow()
    # A copy without the optimizer, whose state would be saved too and is twice the size of the weights.
    inference = type(network).from_config(network.get_config())
    inference.set_weights(network.get_weights())
    specification = tf.TensorSpec(signature.input.shape, tf.uint8, name=signature.input.name)

    @tf.function(input_signature=[specification])  # type: ignore[untyped-decorator]
    def serve(image: Any) -> dict[str, Any]:
        return {signature.output.name: inference(image, training=False)}

    module = tf.Module()
    module.serve = serve
    # The variables themselves instead of the network: Keras wraps them, and in a network within a network OpenVINO does
    # not find them then.
    module.weights = [variable.value for variable in inference.variables]
    try:
        tf.saved_model.save(module, str(folder), signatures={signature.name: serve})
    except tf.errors.OpError as exc:
        if os.strerror(errno.ENOSPC) in exc.message:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from exc
        raise PublishError(f"TensorFlow could not write the SavedModel: {exc.message}. Nothing was published.") from exc
    assets = folder / "assets"
    if assets.is_dir() and not any(assets.iterdir()):
        assets.rmdir()  # git and object stores drop empty folders, so the bundle must not need one


def _write_golden(folder: Path, contents: Contents) -> tuple[GoldenPicture, ...]:
    """Write the golden pictures as their original bytes, the first ones always, then as many as stay small."""
    (folder / GOLDEN_FOLDER).mkdir()
    golden: list[GoldenPicture] = []
    size = 0
    for picture in contents.golden[:_GOLDEN_PICTURES]:
        encoded = picture.encoded()
        size += len(encoded)
        if golden and size > _GOLDEN_BYTES:
            break
        file = f"{GOLDEN_FOLDER}/{len(golden):02}.{read_header(encoded).format}"
        (folder / file).write_bytes(encoded)
        golden.append(GoldenPicture(file=file, label=picture.label))
    return tuple(golden)


def _write_expected(folder: Path, spec: PreprocessingSpec, golden: Sequence[GoldenPicture], engine: Engine) -> None:
    images = np.stack([preprocess((folder / picture.file).read_bytes(), spec) for picture in golden])
    (folder / GOLDEN_EXPECTED).write_bytes(expected_npz(images, engine.predict(images)))


def _headline(metrics: Mapping[str, Any]) -> dict[str, int | float]:
    headline: dict[str, int | float] = {
        f"{split}.{figure}": metrics[split][figure]
        for split in ("train", "validation", "test")
        if metrics[split]
        for figure in ("accuracy", "loss")
    }
    return {**headline, "fit_seconds": metrics["fit_seconds"], "parameters": metrics["parameters"]}


def _git_commit() -> str | None:
    """Return the commit of the code that trains, with "+changes" where it was edited; None outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--", "app", "training") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _sync(folder: Path) -> None:
    """Make the files durable before the rename makes them visible."""
    for file in folder.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
