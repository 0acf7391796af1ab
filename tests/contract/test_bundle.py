"""A bundle is opened only where every byte is the one that was exported."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.contract.bundle import (
    GOLDEN_EXPECTED,
    MANIFEST,
    METRICS,
    MODEL_CARD,
    Manifest,
    Signature,
    TensorSpec,
    digests,
    expected_npz,
    open_bundle,
    read_manifest,
)
from app.contract.preprocessing import PreprocessingSpec, preprocess
from app.errors import BundleIncompatible, BundleNotFound, BundleTampered

Sign = Callable[[Path], None]
# One of each kind.
FILES = [
    "saved_model.pb",
    "fingerprint.pb",
    "variables/variables.index",
    "variables/variables.data-00000-of-00001",
    "golden/00.png",
    GOLDEN_EXPECTED,
    METRICS,
    MODEL_CARD,
    "split.csv.gz",
]


@pytest.fixture
def path(copy_of_store: Path) -> Path:
    return copy_of_store / "digits" / "1"


def change_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((path / MANIFEST).read_bytes())
    change(manifest)
    (path / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


# As exported


def test_bundle_that_training_wrote_is_opened(trained_store: Path) -> None:
    bundle = open_bundle(trained_store / "digits" / "1")
    assert (bundle.name, bundle.version) == ("digits", 1)
    assert bundle.manifest.labels == tuple("0123456789")
    assert bundle.manifest.preprocessing == PreprocessingSpec(height=28, width=28, colour="grey")
    features = TensorSpec(name="features", dtype="float32", shape=(None, 64))
    assert bundle.manifest.signature == Signature.of(bundle.manifest.preprocessing, bundle.manifest.labels, (features,))
    assert bundle.metrics()["test"]["accuracy"] == bundle.manifest.metrics["test.accuracy"]
    assert "digits" in bundle.card()


def test_golden_pictures_are_what_training_made_of_them(trained_store: Path) -> None:
    bundle = open_bundle(trained_store / "digits" / "1")
    golden = bundle.golden
    assert len(golden.names) == len(golden.encoded) == len(bundle.manifest.golden) == 16
    assert (golden.images.shape, str(golden.images.dtype)) == ((16, 28, 28, 1), "uint8")
    assert (golden.probabilities.shape, str(golden.probabilities.dtype)) == ((16, 10), "float32")
    np.testing.assert_allclose(golden.probabilities.sum(axis=1), 1, atol=1e-5)
    for encoded, image in zip(golden.encoded, golden.images, strict=True):
        np.testing.assert_array_equal(preprocess(encoded, bundle.manifest.preprocessing), image)


def test_manifest_lists_every_file_but_itself(trained_store: Path) -> None:
    path = trained_store / "digits" / "1"
    manifest = read_manifest(path)
    assert manifest.files == digests(path)
    assert set(FILES) < set(manifest.files)
    assert MANIFEST not in manifest.files


def test_bundle_that_was_moved_to_another_store_is_opened(path: Path) -> None:
    assert open_bundle(path).manifest == read_manifest(path)


# Damage


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("place", [0, -1])
def test_one_changed_byte_is_found(path: Path, file: str, place: int) -> None:
    content = bytearray((path / file).read_bytes())
    content[place] ^= 1
    (path / file).write_bytes(content)
    with pytest.raises(BundleTampered, match=f"{file} is not the file that was exported .*Copy the bundle again"):
        open_bundle(path)


@pytest.mark.parametrize("file", FILES)
def test_missing_file_is_found(path: Path, file: str) -> None:
    (path / file).unlink()
    with pytest.raises(BundleTampered, match=f"{file} is missing. Copy the bundle again"):
        open_bundle(path)


@pytest.mark.parametrize("file", ["notes.txt", "golden/99.png", "variables/.DS_Store", "assets/vocabulary.txt"])
def test_added_file_is_found(path: Path, file: str) -> None:
    (path / file).parent.mkdir(exist_ok=True)
    (path / file).write_bytes(b"")
    with pytest.raises(BundleTampered, match=f"{file} is not in the manifest. Remove it"):
        open_bundle(path)


def test_folder_in_place_of_a_file_is_found(path: Path) -> None:
    (path / METRICS).unlink()
    (path / METRICS).mkdir()
    with pytest.raises(BundleTampered, match="cannot be read: Is a directory"):
        open_bundle(path)


def test_empty_folder_is_no_damage(path: Path) -> None:
    (path / "assets").mkdir()
    assert open_bundle(path).version == 1


@pytest.mark.parametrize(("name", "version"), [("digits", "2"), ("numbers", "1")])
def test_bundle_that_lies_elsewhere_is_refused(path: Path, name: str, version: str) -> None:
    elsewhere = path.parents[1] / name / version
    shutil.copytree(path, elsewhere)
    with pytest.raises(
        BundleTampered, match=r"holds digits version 1: a bundle must lie at the <name>/<version>/.*Move it back"
    ):
        open_bundle(elsewhere)


def test_path_of_a_bundle_may_go_through_the_present_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    assert open_bundle(path.parent / "." / "1").version == 1


def test_signed_damage_passes_the_digests(path: Path, sign: Sign) -> None:
    (path / MODEL_CARD).write_text("another card", encoding="utf-8")
    sign(path)
    assert open_bundle(path).card() == "another card"


# The manifest


def test_folder_without_a_manifest_is_no_bundle(tmp_path: Path, path: Path) -> None:
    for no_bundle in (tmp_path / "nowhere", tmp_path, path / METRICS):
        with pytest.raises(BundleNotFound, match=r"is not a bundle: it has no manifest\.json"):
            open_bundle(no_bundle)


def test_manifest_that_is_a_folder_cannot_be_read(path: Path) -> None:
    (path / MANIFEST).unlink()
    (path / MANIFEST).mkdir()
    with pytest.raises(BundleNotFound, match=r"manifest\.json cannot be read: Is a directory"):
        open_bundle(path)


@pytest.mark.parametrize("content", [b"", b"{", b"labels: [a, b]", b"\xff\xfe\x00", b"\x80"])
def test_manifest_that_is_not_json_is_refused(path: Path, content: bytes) -> None:
    (path / MANIFEST).write_bytes(content)
    with pytest.raises(BundleTampered, match=r"manifest\.json is not JSON"):
        open_bundle(path)


@pytest.mark.parametrize("content", ["[]", "null", "7", "{}", '"digits"', '{"schema_version": "1"}', "[" * 100_000])
def test_manifest_that_is_other_json_is_refused(path: Path, content: str) -> None:
    (path / MANIFEST).write_text(content)
    with pytest.raises(BundleTampered, match=r"manifest\.json is not"):
        open_bundle(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest.update(labels=["a", "b"] * 5), "labels repeat"),
        (lambda manifest: manifest.update(labels=["a"]), "labels"),
        (
            lambda manifest: manifest.update(labels=["a", "b"]),
            "signature does not fit the preprocessing and the labels",
        ),
        (lambda manifest: manifest["preprocessing"].update(width=27), "signature does not fit the preprocessing"),
        (lambda manifest: manifest["preprocessing"].update(colour="rgb"), "signature does not fit the preprocessing"),
        (lambda manifest: manifest["signature"].update(name="predict"), "signature does not fit the preprocessing"),
        (lambda manifest: manifest["signature"]["input"].update(dtype="int64"), r"signature\.input\.dtype"),
        (lambda manifest: manifest.update(shadow=True), "shadow: Extra inputs are not permitted"),
        (lambda manifest: manifest["preprocessing"].update(sharpen=True), r"preprocessing\.sharpen: Extra inputs"),
        (lambda manifest: manifest.pop("labels"), "labels: Field required"),
        (lambda manifest: manifest.update(version=0), "version: Input should be greater"),
        (lambda manifest: manifest.update(golden=[]), "golden: "),
        (lambda manifest: manifest.update(created_at="yesterday"), "created_at: "),
    ],
)
def test_manifest_that_contradicts_itself_is_refused_with_the_field(
    path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    change_manifest(path, change)
    with pytest.raises(BundleTampered, match=f"is not a valid manifest: .*{message}"):
        open_bundle(path)


FEATURES = {"name": "features", "dtype": "float32", "shape": [None, 7]}
HEAT_MAP = {"name": "heat_map", "dtype": "float32", "shape": [None, 4, 5]}


@pytest.mark.parametrize("others", [[], [FEATURES], [HEAT_MAP], [FEATURES, HEAT_MAP]])
def test_manifest_of_the_second_schema_may_declare_outputs_beside_the_probabilities(
    path: Path, others: list[dict[str, Any]]
) -> None:
    change_manifest(path, lambda manifest: manifest.update(schema_version=2))
    change_manifest(path, lambda manifest: manifest["signature"].update(other_outputs=others))
    signature = open_bundle(path).manifest.signature
    assert [output.name for output in signature.outputs] == ["probabilities", *(output["name"] for output in others)]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (
            [{**FEATURES, "name": "logits"}],
            "'logits' is not one of the optional outputs: features, class_maps, heat_map",
        ),
        ([{**FEATURES, "name": "probabilities"}], "'probabilities' is not one of the optional outputs"),
        ([FEATURES, FEATURES], "optional outputs repeat"),
        ([{**FEATURES, "dtype": "uint8"}], "'features' is not float32 of 2 dimensions, the first of them free"),
        ([{**FEATURES, "shape": [8, 7]}], "'features' is not float32 of 2 dimensions, the first of them free"),
        ([{**FEATURES, "shape": []}], "'features' is not float32 of 2 dimensions, the first of them free"),
        ([{**HEAT_MAP, "shape": [None, 4]}], "'heat_map' is not float32 of 3 dimensions, the first of them free"),
        ([{**HEAT_MAP, "shape": [None, 4, None]}], "'heat_map' is not float32 of 3 dimensions"),
    ],
)
def test_outputs_that_the_second_schema_does_not_have_are_refused(
    path: Path, others: list[dict[str, Any]], message: str
) -> None:
    change_manifest(path, lambda manifest: manifest.update(schema_version=2))
    change_manifest(path, lambda manifest: manifest["signature"].update(other_outputs=others))
    with pytest.raises(BundleTampered, match=f"is not a valid manifest: .*{message}"):
        open_bundle(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["signature"].update(other_outputs=[FEATURES]),
        lambda manifest: (manifest["signature"].pop("other_outputs"), manifest["preprocessing"].update(version=2)),
    ],
)
def test_manifest_of_the_first_schema_has_nothing_of_the_second(
    path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    change_manifest(path, lambda manifest: manifest.update(schema_version=1))
    change_manifest(path, change)
    with pytest.raises(BundleTampered, match="schema version 1 has neither other outputs nor preprocessing of version"):
        open_bundle(path)


def test_bundles_without_new_features_are_written_in_the_first_schema(
    repository: Path,
) -> None:
    text = (repository / "tests" / "data" / "bundles" / "mnist" / "1" / MANIFEST).read_text(encoding="utf-8")
    written = Manifest.model_validate_json(text)
    assert (written.schema_version, written.preprocessing.version) == (1, 1)
    assert written.model_dump_json(indent=1) + "\n" == text
    assert "other_outputs" not in text


def test_a_training_writes_what_the_last_layer_reads_as_an_output(trained_store: Path) -> None:
    bundle = open_bundle(trained_store / "digits" / "1")
    manifest = bundle.manifest
    assert (manifest.schema_version, manifest.preprocessing.version) == (2, 1)
    assert [(tensor.name, tensor.shape) for tensor in manifest.signature.other_outputs] == [("features", (None, 64))]
    assert bundle.golden.other_outputs["features"].shape == (len(manifest.golden), 64)


@pytest.mark.parametrize("version", [0, 3, 99])
@pytest.mark.parametrize("unknown_fields", [False, True])
def test_newer_manifest_says_which_release_to_use(path: Path, version: int, unknown_fields: bool) -> None:
    change_manifest(path, lambda manifest: manifest.update(schema_version=version))
    if unknown_fields:
        change_manifest(path, lambda manifest: manifest.update(shadow=True))
    with pytest.raises(
        BundleIncompatible,
        match=f"manifest schema version {version}; this installation supports versions 1 and 2. Serve it with the "
        "imageclass release that wrote it, or train it again",
    ):
        open_bundle(path)


def test_newer_preprocessing_says_which_release_to_use(path: Path) -> None:
    change_manifest(path, lambda manifest: manifest["preprocessing"].update(version=3, sharpen=True))
    with pytest.raises(
        BundleIncompatible, match=r"preprocessing version 3; this .* Serve it with .* or train it again"
    ):
        open_bundle(path)


@pytest.mark.parametrize(
    "file", ["../secret.txt", "/etc/passwd", "golden/../../secret.txt", "..", "golden\\..\\secret.txt", ""]
)
def test_paths_out_of_the_bundle_are_refused(path: Path, file: str) -> None:
    (path.parent / "secret.txt").write_text("secret")
    for change in (
        lambda manifest: manifest["files"].update({file: "0" * 64}),
        lambda manifest: manifest["golden"][0].update(file=file),
    ):
        shutil.copy(path / MANIFEST, path.parent / "manifest.before")
        change_manifest(path, change)
        with pytest.raises(BundleTampered, match="file paths are relative, with forward slashes, and stay inside"):
            open_bundle(path)
        shutil.copy(path.parent / "manifest.before", path / MANIFEST)


# The golden pictures


def test_golden_picture_must_be_among_the_files(path: Path) -> None:
    (path / "golden" / "00.png").unlink()
    change_manifest(path, lambda manifest: manifest["files"].pop("golden/00.png"))
    with pytest.raises(BundleTampered, match="lists golden pictures that are not among its files"):
        open_bundle(path)


def test_expected_numbers_must_be_among_the_files(path: Path) -> None:
    (path / GOLDEN_EXPECTED).unlink()
    change_manifest(path, lambda manifest: manifest["files"].pop(GOLDEN_EXPECTED))
    with pytest.raises(BundleTampered, match="lists golden pictures that are not among its files"):
        open_bundle(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a zip file",
        b"PK\x03\x04 cut off",
        expected_npz(np.zeros((16, 28, 28, 1), np.uint8), np.zeros((16, 10), np.float32))[:-30],
    ],
)
def test_expected_numbers_that_cannot_be_read_are_refused(path: Path, sign: Sign, content: bytes) -> None:
    (path / GOLDEN_EXPECTED).write_bytes(content)
    sign(path)
    with pytest.raises(BundleTampered, match=r"golden/expected\.npz cannot be read"):
        _ = open_bundle(path).golden


def test_expected_numbers_are_never_unpickled(path: Path, sign: Sign) -> None:
    np.savez(path / GOLDEN_EXPECTED, images=np.array([{}]), probabilities=np.array([{}]))
    sign(path)
    with pytest.raises(BundleTampered, match="allow_pickle"):
        _ = open_bundle(path).golden


def test_single_array_in_place_of_the_expected_numbers_is_refused(path: Path, sign: Sign) -> None:
    with (path / GOLDEN_EXPECTED).open("wb") as file:
        np.save(file, np.zeros(3))
    sign(path)
    with pytest.raises(BundleTampered, match=r"golden/expected\.npz cannot be read"):
        _ = open_bundle(path).golden


def test_expected_numbers_of_another_type_are_refused(path: Path, sign: Sign) -> None:
    images, probabilities = np.full((16, 28, 28, 1), np.nan), np.full((16, 10), "a")
    np.savez(path / GOLDEN_EXPECTED, images=images, probabilities=probabilities)
    sign(path)
    with pytest.raises(BundleTampered, match="does not fit the manifest's 16 golden pictures"):
        _ = open_bundle(path).golden


def test_expected_numbers_without_their_names_are_refused(path: Path, sign: Sign) -> None:
    np.savez(path / GOLDEN_EXPECTED, images=np.zeros((16, 28, 28, 1), np.uint8))
    sign(path)
    with pytest.raises(BundleTampered, match=r"expected\.npz cannot be read"):
        _ = open_bundle(path).golden


@pytest.mark.parametrize(
    ("images", "probabilities"),
    [((15, 28, 28, 1), (15, 10)), ((16, 28, 28, 3), (16, 10)), ((16, 28, 28, 1), (16, 9)), ((16, 28, 28), (16, 10))],
)
def test_expected_numbers_of_another_shape_are_refused(
    path: Path, sign: Sign, images: tuple[int, ...], probabilities: tuple[int, ...]
) -> None:
    numbers = expected_npz(np.zeros(images, np.uint8), np.zeros(probabilities, np.float32))
    (path / GOLDEN_EXPECTED).write_bytes(numbers)
    sign(path)
    with pytest.raises(BundleTampered, match="does not fit the manifest's 16 golden pictures"):
        _ = open_bundle(path).golden
