"""Read and check a bundle: a SavedModel directory with everything that is needed to verify its answers.

    saved_model.pb  variables/  …    what TensorFlow and OpenVINO load
    manifest.json                    `Manifest`: labels, preprocessing, signature, and the sha256 of every other file
    golden/                          pictures as original bytes, and expected.npz with tensors and outputs to expect
    trust.npz                        the data behind trust: `Trust`; not in every bundle
    metrics.json  MODEL_CARD.md  …   for people

It knows nothing of engines: whether the model reproduces the golden probabilities is proven in `app.engines`.
"""

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from operator import not_
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from app.contract.preprocessing import Image, PreprocessingSpec, PreprocessingVersion
from app.contract.trust import TRUST, Trust
from app.errors import BundleIncompatible, BundleNotFound, BundleTampered

MANIFEST = "manifest.json"
METRICS = "metrics.json"
MODEL_CARD = "MODEL_CARD.md"
GOLDEN_FOLDER = "golden"
GOLDEN_EXPECTED = f"{GOLDEN_FOLDER}/expected.npz"

SchemaVersion = Literal[1, 2]

FEATURES = "features"
CLASS_MAPS = "class_maps"
OPTIONAL_OUTPUTS = {FEATURES: 2, CLASS_MAPS: 4, "heat_map": 3}
"""Optional outputs of a network with their number of dimensions: the features that its last layer reads (N, D); each
class's logit at each place (N, h, w, K), whose mean over the places is the logit; and (N, h, w), which no release has
written."""

_HASH_CHUNK_BYTES = 1 << 20


def _inside_the_bundle(path: str) -> str:
    if not path or path.startswith("/") or "\\" in path or ".." in path.split("/"):
        raise ValueError("file paths are relative, with forward slashes, and stay inside the bundle")
    return path


RelativePath = Annotated[str, AfterValidator(_inside_the_bundle)]


def _is_unset(value: object) -> bool:
    return value is None


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorSpec(_Frozen):
    """One tensor of the signature; None in `shape` is a free dimension."""

    name: str
    dtype: Literal["uint8", "float32"]
    shape: tuple[int | None, ...]


class Signature(_Frozen):
    """The one signature that is served: uint8 pictures in, probabilities out.

    `other_outputs` are some of OPTIONAL_OUTPUTS, float32. Engines return them on request.
    """

    name: str = "serving_default"
    input: TensorSpec
    output: TensorSpec
    other_outputs: tuple[TensorSpec, ...] = Field((), exclude_if=not_)

    @classmethod
    def of(cls, spec: PreprocessingSpec, labels: Sequence[str], other_outputs: tuple[TensorSpec, ...] = ()) -> Self:
        return cls(
            input=TensorSpec(name="image", dtype="uint8", shape=(None, *spec.shape)),
            output=TensorSpec(name="probabilities", dtype="float32", shape=(None, len(labels))),
            other_outputs=other_outputs,
        )

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return (self.output, *self.other_outputs)

    @model_validator(mode="after")
    def _other_outputs_are_known(self) -> Self:
        for tensor in self.other_outputs:
            dimensions = OPTIONAL_OUTPUTS.get(tensor.name)
            if dimensions is None:
                raise ValueError(f"'{tensor.name}' is not one of the optional outputs: {', '.join(OPTIONAL_OUTPUTS)}")
            batch, *sizes = tensor.shape or (0,)
            if (tensor.dtype, batch, len(sizes)) != ("float32", None, dimensions - 1) or None in sizes:
                raise ValueError(f"'{tensor.name}' is not float32 of {dimensions} dimensions, the first of them free")
        if len({tensor.name for tensor in self.other_outputs}) != len(self.other_outputs):
            raise ValueError("optional outputs repeat")
        return self


class GoldenPicture(_Frozen):
    """A picture whose tensor and probabilities are known; `file` is its path in the bundle."""

    file: RelativePath
    label: str


class Manifest(_Frozen):
    """The content of manifest.json. `files` maps every other file of the bundle to its sha256.

    If `min_probability` is set, an answer with a lower probability is called unsure. If `false_alarms` is set,
    unfamiliar pictures are reported, with this share of familiar pictures as false alarms.
    """

    schema_version: SchemaVersion = 1
    name: str
    version: int = Field(ge=1)
    created_at: datetime
    labels: tuple[str, ...] = Field(min_length=2)
    preprocessing: PreprocessingSpec
    signature: Signature
    metrics: dict[str, int | float]
    training: dict[str, JsonValue]
    split: dict[str, JsonValue]
    git_commit: str | None
    libraries: dict[str, str]
    min_probability: float | None = Field(None, ge=0, le=1, exclude_if=_is_unset)
    false_alarms: float | None = Field(None, gt=0, lt=1, exclude_if=_is_unset)
    golden: tuple[GoldenPicture, ...] = Field(min_length=1)
    files: dict[RelativePath, str]

    @property
    def has_features(self) -> bool:
        return any(tensor.name == FEATURES for tensor in self.signature.other_outputs)

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels repeat")
        if self.signature != Signature.of(self.preprocessing, self.labels, self.signature.other_outputs):
            raise ValueError("the signature does not fit the preprocessing and the labels")
        if self.schema_version < oldest_schema(self.signature, self.preprocessing, self.min_probability):
            raise ValueError(
                "schema version 1 has neither other outputs nor preprocessing of version 2, nor a minimum probability"
            )
        if TRUST in self.files and not self.has_features:
            raise ValueError(f"{TRUST} needs the output '{FEATURES}', which the signature does not have")
        if self.false_alarms is not None and TRUST not in self.files:
            raise ValueError(f"a rate of false alarms needs {TRUST}")
        return self


def oldest_schema(
    signature: Signature, preprocessing: PreprocessingSpec, min_probability: float | None
) -> SchemaVersion:
    """Return the oldest schema version that can express this manifest, so that older releases can read the bundle."""
    return 2 if signature.other_outputs or preprocessing.version == 2 or min_probability is not None else 1


@dataclass(frozen=True)
class GoldenSet:
    """The golden pictures, with the tensors and outputs that training computed from them.

    `encoded`: the original bytes; `images`: (N, H, W, C) uint8; `probabilities`: (N, K) float32 by TensorFlow; and
    `other_outputs`, float32 by name, which the first bundles of schema 2 do not have.
    """

    names: tuple[str, ...]
    encoded: tuple[bytes, ...]
    images: Image
    probabilities: NDArray[np.float32]
    other_outputs: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose manifest is valid and whose files have the digests that it states."""

    path: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> int:
        return self.manifest.version

    @cached_property
    def golden(self) -> GoldenSet:
        """The golden pictures. Raises BundleTampered if they and the expected outputs do not match."""
        manifest = self.manifest
        try:
            with np.load(io.BytesIO((self.path / GOLDEN_EXPECTED).read_bytes()), allow_pickle=False) as expected:
                images, probabilities = expected["images"], expected["probabilities"]
                declared = [tensor.name for tensor in manifest.signature.other_outputs]
                others = {name: expected[name] for name in declared if name in expected}
        except (OSError, EOFError, ValueError, TypeError, KeyError, zipfile.BadZipFile, zlib.error) as exc:
            raise BundleTampered(f"{self.path}: {GOLDEN_EXPECTED} cannot be read ({exc}).") from exc
        count = len(manifest.golden)
        found = (images.dtype, images.shape, probabilities.dtype, probabilities.shape)
        if found != (np.uint8, (count, *manifest.preprocessing.shape), np.float32, (count, len(manifest.labels))):
            raise BundleTampered(f"{self.path}: {GOLDEN_EXPECTED} does not fit the manifest's {count} golden pictures.")
        return GoldenSet(
            names=tuple(picture.file for picture in manifest.golden),
            encoded=tuple((self.path / picture.file).read_bytes() for picture in manifest.golden),
            images=images,
            probabilities=probabilities,
            other_outputs=others,
        )

    @cached_property
    def trust(self) -> Trust | None:
        """The data to judge trust by, None if there is none. Raises BundleTampered if it does not fit the model."""
        manifest = self.manifest
        if TRUST not in manifest.files:
            return None
        features = (tensor for tensor in manifest.signature.other_outputs if tensor.name == FEATURES)
        width = next((tensor.shape[1] for tensor in features), None)
        try:
            return Trust.from_npz((self.path / TRUST).read_bytes(), features=width or 0, classes=len(manifest.labels))
        except (OSError, ValueError) as exc:
            raise BundleTampered(f"{self.path}: {TRUST} is unusable: {exc}. Train the model again.") from exc

    def metrics(self) -> dict[str, Any]:
        """Return metrics.json."""
        metrics: dict[str, Any] = json.loads((self.path / METRICS).read_bytes())
        return metrics

    def card(self) -> str:
        """Return MODEL_CARD.md."""
        return (self.path / MODEL_CARD).read_text(encoding="utf-8")


def open_bundle(path: Path) -> Bundle:
    """Read the bundle at `path` and check its manifest and the digest of every file.

    Raises BundleNotFound, BundleIncompatible or BundleTampered, each with the reason.
    """
    manifest = read_manifest(path)
    if (path.parent.name, path.name) != (manifest.name, str(manifest.version)):
        raise BundleTampered(
            f"{path} holds {manifest.name} version {manifest.version}: a bundle must lie at the <name>/<version>/ "
            "that its manifest states. Move it back, or train under the other name."
        )
    _check_digests(path, manifest)
    return Bundle(path, manifest)


def digests(path: Path) -> dict[str, str]:
    """Return the sha256 of every file of the bundle but the manifest, by its path in the bundle, sorted."""
    files = (file for file in path.rglob("*") if file.is_file() and file != path / MANIFEST)
    return {file.relative_to(path).as_posix(): _sha256(file) for file in sorted(files)}


def expected_npz(
    images: Image, probabilities: NDArray[np.float32], other_outputs: Mapping[str, NDArray[np.float32]] | None = None
) -> bytes:
    """Return the bytes of golden/expected.npz."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"images": images, "probabilities": probabilities, **(other_outputs or {})}
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def read_manifest(path: Path) -> Manifest:
    """Read the bundle's manifest alone. Raises BundleNotFound, BundleIncompatible or BundleTampered."""
    try:
        text = (path / MANIFEST).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise BundleNotFound(f"{path} is not a bundle: it has no {MANIFEST}.") from None
    except OSError as exc:
        raise BundleNotFound(f"{path / MANIFEST} cannot be read: {exc.strerror}.") from exc
    return parse_manifest(text, str(path))


def parse_manifest(text: bytes, place: str) -> Manifest:
    """Return the manifest in `text`, of the bundle at `place`. Raises BundleIncompatible or BundleTampered."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise BundleTampered(f"{place}/{MANIFEST} is not JSON: {exc}.") from exc
    if isinstance(raw, dict):
        _check_versions(place, raw)
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise BundleTampered(f"{place}/{MANIFEST} is not a valid manifest: {where}: {first['msg']}.") from exc


def _check_versions(place: str, raw: dict[str, Any]) -> None:
    """Reject a manifest of a newer release before its unknown fields are taken for damage."""
    preprocessing = raw.get("preprocessing")
    for what, found, known in (
        ("manifest schema", raw.get("schema_version"), get_args(SchemaVersion)),
        (
            "preprocessing",
            preprocessing.get("version") if isinstance(preprocessing, dict) else None,
            get_args(PreprocessingVersion),
        ),
    ):
        if isinstance(found, int) and found not in known:
            raise BundleIncompatible(
                f"{place} uses {what} version {found}; this installation supports versions "
                f"{' and '.join(map(str, known))}. Serve it with the imageclass release that wrote it, or train it "
                "again with this one."
            )


def _check_digests(path: Path, manifest: Manifest) -> None:
    for name, expected in manifest.files.items():
        try:
            found = _sha256(path / name)
        except FileNotFoundError:
            raise BundleTampered(f"{path}: {name} is missing. Copy the bundle again.") from None
        except OSError as exc:
            raise BundleTampered(f"{path}: {name} cannot be read: {exc.strerror}.") from exc
        if found != expected:
            raise BundleTampered(
                f"{path}: {name} is not the file that was exported (sha256 {found[:12]}…, expected {expected[:12]}…). "
                "Copy the bundle again, or train it again."
            )
    present = {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}
    unlisted = sorted(present - manifest.files.keys() - {MANIFEST})
    if unlisted:
        raise BundleTampered(f"{path}: {unlisted[0]} is not in the manifest. Remove it, or copy the bundle again.")
    unlisted_golden = [picture.file for picture in manifest.golden if picture.file not in manifest.files]
    if unlisted_golden or GOLDEN_EXPECTED not in manifest.files:
        raise BundleTampered(f"{path}: the manifest lists golden pictures that are not among its files.")


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
