"""A bundle is served by the fastest engine that is proven to agree with training, or refused with the reason."""

import json
import mmap
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.contract.bundle import GOLDEN_EXPECTED, MANIFEST, Signature, expected_npz, open_bundle
from app.contract.preprocessing import Image
from app.engines import openvino
from app.engines.engine import Engine, EngineFactory, Precision
from app.engines.loading import LoadedModel, load_model
from app.engines.registry import ENGINES, REFERENCE, EngineName
from app.engines.tensorflow import import_tensorflow
from app.errors import BundleIncompatible, BundleNotFound, BundleTampered, EngineUnavailable, SelfCheckFailed

Sign = Callable[[Path], None]


@pytest.fixture
def path(copy_of_store: Path) -> Path:
    return copy_of_store / "digits" / "1"


@pytest.fixture(scope="module")
def bundle_path(trained_store: Path) -> Path:
    return trained_store / "digits" / "1"


@pytest.fixture(scope="module")
def models(bundle_path: Path) -> Iterator[dict[EngineName, LoadedModel]]:
    """The bundle on every engine."""
    loaded = {name: load_model(bundle_path, engine=name, threads=2) for name in ENGINES}
    yield loaded
    for model in loaded.values():
        model.engine.close()


def random_batch(size: int) -> Image:
    return np.random.default_rng(size).integers(0, 256, (size, 28, 28, 1), np.uint8)


# Every engine


@pytest.mark.parametrize("name", ENGINES)
def test_engine_reproduces_the_golden_probabilities(models: dict[EngineName, LoadedModel], name: EngineName) -> None:
    model = models[name]
    found = model.engine.predict(model.bundle.golden.images)
    np.testing.assert_allclose(found, model.bundle.golden.probabilities, atol=1e-4)
    assert model.engine.name == name
    assert model.reason == f"set to {name}"
    assert model.rejections == ()
    assert model.proof.pictures == 16
    assert model.proof.max_probability_difference <= 1e-4


def test_engines_agree_on_batches_of_every_size(models: dict[EngineName, LoadedModel]) -> None:
    for size in range(1, 71):
        batch = random_batch(size)
        expected = models[REFERENCE].engine.predict(batch)
        for model in models.values():
            found = model.engine.predict(batch)
            assert (found.shape, str(found.dtype)) == ((size, 10), "float32")
            np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", ENGINES)
def test_answer_does_not_depend_on_the_rest_of_the_batch(
    models: dict[EngineName, LoadedModel], name: EngineName
) -> None:
    engine, batch = models[name].engine, random_batch(40)
    alone = np.concatenate([engine.predict(batch[index : index + 1]) for index in range(40)])
    np.testing.assert_allclose(engine.predict(batch), alone, atol=1e-5)


@pytest.mark.parametrize("name", ENGINES)
def test_answers_stay_as_they_are_when_the_engine_goes_on(
    models: dict[EngineName, LoadedModel], name: EngineName
) -> None:
    engine = models[name].engine
    first = engine.predict(random_batch(5))
    before = first.copy()
    engine.predict(random_batch(6)[:5])
    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize("name", ENGINES)
def test_threads_that_call_at_once_get_their_own_answers(
    models: dict[EngineName, LoadedModel], name: EngineName
) -> None:
    engine, callers = models[name].engine, 8
    batches = [random_batch(3 + caller) for caller in range(callers)]
    expected = [engine.predict(batch) for batch in batches]
    together = Barrier(callers)

    def call(caller: int) -> list[NDArray[np.float32]]:
        together.wait(timeout=60)
        return [engine.predict(batches[caller]) for _ in range(20)]

    with ThreadPoolExecutor(callers) as pool:
        for found, wanted in zip(pool.map(call, range(callers)), expected, strict=True):
            for answer in found:
                np.testing.assert_allclose(answer, wanted, atol=1e-5)


# Which engine


class Fake:
    """An engine that answers with `answer` for every picture."""

    def __init__(self, name: EngineName, answer: float) -> None:
        self.name: EngineName = name
        self.answer = answer
        self.sizes: list[int] = []
        self.closed = False

    def predict(self, batch: Image) -> NDArray[np.float32]:
        self.sizes.append(len(batch))
        return np.full((len(batch), 10), self.answer, np.float32)

    def prepare(self, batch_size: int) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def opens(engine: Engine) -> EngineFactory:
    def factory(path: Path, signature: Signature, *, threads: int, precision: Precision = "f32") -> Engine:
        return engine

    return factory


def unavailable(reason: str) -> EngineFactory:
    def factory(path: Path, signature: Signature, *, threads: int, precision: Precision = "f32") -> Engine:
        raise EngineUnavailable(reason)

    return factory


Install = Callable[[EngineName, EngineFactory], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return the function that puts another engine in the place of one."""
    return lambda name, factory: monkeypatch.setattr(ENGINES[name].factory.replace(":", "."), factory)


def test_auto_takes_openvino(bundle_path: Path, install: Install) -> None:
    install("tensorflow", unavailable("not asked for"))
    model = load_model(bundle_path, threads=2)
    assert model.engine.name == "openvino"
    assert model.reason == "the fastest engine, and it passed the golden check"
    assert model.rejections == ()
    model.engine.close()


def test_auto_takes_tensorflow_where_openvino_is_not_installed(bundle_path: Path, install: Install) -> None:
    install("openvino", unavailable("OpenVINO is not installed."))
    model = load_model(bundle_path, threads=2)
    assert model.engine.name == "tensorflow"
    assert model.reason == "openvino was rejected (engine_unavailable)"
    assert [str(rejection) for rejection in model.rejections] == ["OpenVINO is not installed."]
    model.engine.close()


def test_auto_takes_tensorflow_where_openvino_disagrees_with_training(bundle_path: Path, install: Install) -> None:
    wrong = Fake("openvino", 0.1)
    install("openvino", opens(wrong))
    model = load_model(bundle_path, threads=2)
    assert model.engine.name == "tensorflow"
    assert model.reason == "openvino was rejected (self_check_failed)"
    assert "openvino gives probabilities for the golden pictures that differ" in str(model.rejections[0])
    assert wrong.closed
    model.engine.close()


def test_auto_takes_tensorflow_where_openvino_cannot_read_the_model(bundle_path: Path, install: Install) -> None:
    def cannot_read(path: Path, signature: Signature, *, threads: int, precision: Precision = "f32") -> Engine:
        raise BundleTampered("an operation is unknown")

    install("openvino", cannot_read)
    model = load_model(bundle_path, threads=2)
    assert (model.engine.name, model.reason) == ("tensorflow", "openvino was rejected (bundle_tampered)")
    model.engine.close()


def test_where_both_engines_disagree_the_bundle_is_at_fault(bundle_path: Path, install: Install) -> None:
    for name in ENGINES:
        install(name, opens(Fake(name, 0.1)))
    with pytest.raises(SelfCheckFailed, match="openvino gives probabilities for the golden pictures that differ"):
        load_model(bundle_path)


@pytest.mark.parametrize("missing", ENGINES)
def test_what_is_wrong_with_the_bundle_comes_before_an_engine_that_is_missing(
    bundle_path: Path, install: Install, missing: EngineName
) -> None:
    for name in ENGINES:
        install(name, unavailable("not installed") if name == missing else opens(Fake(name, 0.1)))
    with pytest.raises(SelfCheckFailed, match="gives probabilities for the golden pictures that differ"):
        load_model(bundle_path)


def test_where_no_engine_is_installed_the_fastest_is_asked_for(bundle_path: Path, install: Install) -> None:
    for name in ENGINES:
        install(name, unavailable(f"{name} is not installed"))
    with pytest.raises(EngineUnavailable, match="openvino is not installed"):
        load_model(bundle_path)


@pytest.mark.parametrize("name", ENGINES)
def test_engine_that_is_set_has_no_stand_in(bundle_path: Path, install: Install, name: EngineName) -> None:
    install(name, opens(Fake(name, 0.1)))
    with pytest.raises(SelfCheckFailed, match=f"{name} gives probabilities for the golden pictures that differ"):
        load_model(bundle_path, engine=name)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("openvino", r"OpenVINO cannot be loaded: .*\. Install imageclass again\."),
        ("tensorflow", r"TensorFlow is not installed\. .*pip install '\.\[training\]'"),
    ],
)
def test_engine_that_is_set_but_not_installed_says_how_to_install_it(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch, name: EngineName, sentence: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(openvino, "_core", openvino._core.__wrapped__)  # forget that it was loaded before
    with pytest.raises(EngineUnavailable, match=sentence):
        load_model(bundle_path, engine=name)


@pytest.mark.parametrize("name", ENGINES)
def test_a_prepared_batch_size_gives_the_answers_of_an_unprepared_one(
    models: dict[EngineName, LoadedModel], bundle_path: Path, name: EngineName
) -> None:
    fresh = load_model(bundle_path, engine=name, threads=2).engine
    for size in (1, 4, 16):
        fresh.prepare(size)
    for size in (1, 3, 4, 16, 17):
        found = fresh.predict(random_batch(size))
        assert (found.shape, str(found.dtype)) == ((size, 10), "float32")
        np.testing.assert_allclose(found, models[name].engine.predict(random_batch(size)), atol=1e-5)
    fresh.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads the process's memory from /proc")
def test_preparing_a_size_frees_the_memory_of_larger_batches(bundle_path: Path) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE

    engine = load_model(bundle_path, engine="openvino", threads=1).engine
    before = resident()
    engine.predict(random_batch(4096))
    taken = resident() - before
    engine.prepare(1)
    assert resident() - before < taken / 3
    engine.close()


def test_answers_of_a_prepared_size_are_the_callers_own(bundle_path: Path) -> None:
    """Its tensors are used again for the next batch, also by threads that call at once."""
    engine, callers = load_model(bundle_path, engine="openvino", threads=2).engine, 4
    engine.prepare(3)
    batches = [np.roll(random_batch(3), caller, axis=1) for caller in range(callers)]
    expected = [engine.predict(batch).copy() for batch in batches]
    together = Barrier(callers)

    def call(caller: int) -> list[NDArray[np.float32]]:
        together.wait(timeout=60)
        return [engine.predict(batches[caller]) for _ in range(50)]

    with ThreadPoolExecutor(callers) as pool:
        for found, wanted in zip(pool.map(call, range(callers)), expected, strict=True):
            for answer in found:
                np.testing.assert_array_equal(answer, wanted)
    engine.close()


def test_openvino_serves_without_tensorflow_in_the_process(repository: Path, bundle_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from app.engines.loading import load_model; "
        "name = load_model(Path(sys.argv[1])).engine.name; "
        "print(name, sorted({'tensorflow', 'keras', 'fastapi'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(bundle_path)],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "openvino []\n", "")


# What is refused


@pytest.mark.parametrize("engine", ["auto", *ENGINES])
def test_tampered_bundle_never_reaches_an_engine(path: Path, install: Install, engine: Any) -> None:
    for name in ENGINES:
        install(name, unavailable("reached"))
    data = path / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1] + b"\x00\x00")
    with pytest.raises(BundleTampered, match="is not the file that was exported"):
        load_model(path, engine=engine)


def test_bundle_of_a_newer_preprocessing_is_refused(path: Path) -> None:
    manifest = (path / MANIFEST).read_text()
    (path / MANIFEST).write_text(
        manifest.replace('"preprocessing": {\n  "version": 1', '"preprocessing": {"version": 3')
    )
    with pytest.raises(BundleIncompatible, match="preprocessing version 3"):
        load_model(path)


def test_folder_without_a_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound, match="it has no manifest"):
        load_model(tmp_path)


def replace_model(path: Path, **how: Any) -> None:
    """Put another SavedModel in the place of the bundle's, with no other output unless asked."""
    manifest = json.loads((path / MANIFEST).read_bytes())
    manifest["signature"].pop("other_outputs", None)
    (path / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    tf = import_tensorflow()
    shape, dtype = how.get("shape", (None, 28, 28, 1)), how.get("dtype", "uint8")
    input_name, output_name = how.get("input_name", "image"), how.get("output_name", "probabilities")
    specification = tf.TensorSpec(shape, dtype, name=input_name)

    @tf.function(input_signature=[specification])  # type: ignore[untyped-decorator]
    def serve(image: Any) -> dict[str, Any]:
        levels = tf.cast(image, tf.float32)
        mean = tf.reduce_mean(levels, axis=[1, 2, 3]) / 2550
        answer = tf.stack([mean] * how.get("classes", 10), axis=1)
        others = {"features": answer[:, :3] + 1, "heat_map": levels[..., 0], "logits": answer + 1}
        outputs = {output_name: tf.cast(answer, how.get("output_dtype", "float32"))}
        return outputs | {name: others[name] for name in how.get("others", ())}

    folder = path.parent / "replacement"
    tf.saved_model.save(tf.Module(), str(folder), signatures={how.get("signature", "serving_default"): serve})
    for file in ("saved_model.pb", "fingerprint.pb"):
        shutil.copy(folder / file, path / file)
    shutil.rmtree(path / "variables")
    shutil.copytree(folder / "variables", path / "variables")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            {"dtype": "float32"},
            "input is image float32 [?, 28, 28, 1], but the manifest says image uint8 [?, 28, 28, 1]",
        ),
        ({"shape": (None, 32, 28, 1)}, "input is image uint8 [?, 32, 28, 1], but the manifest says image uint8 [?, 28"),
        ({"shape": (8, 28, 28, 1)}, "input is image uint8 [8, 28, 28, 1], but the manifest says image uint8 [?, 28"),
        ({"input_name": "picture"}, "input is picture uint8 [?, 28, 28, 1], but the manifest says image uint8"),
        ({"output_name": "scores"}, "output is scores float32 [?, 10], but the manifest says probabilities float32"),
        ({"classes": 9}, "output is probabilities float32 [?, 9], but the manifest says probabilities float32 [?, 10]"),
        ({"output_dtype": "uint8"}, "output is probabilities uint8 [?, 10], but the manifest says probabilities float"),
        ({"others": ["logits"]}, "but the manifest says probabilities float32 [?, 10]"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_model_of_another_signature_is_refused(
    path: Path, sign: Sign, engine: EngineName, how: dict[str, Any], message: str
) -> None:
    replace_model(path, **how)
    sign(path)
    with pytest.raises(BundleTampered) as refused:
        load_model(path, engine=engine)
    assert message in str(refused.value)


FEATURES = {"name": "features", "dtype": "float32", "shape": [None, 3]}
HEAT_MAP = {"name": "heat_map", "dtype": "float32", "shape": [None, 28, 28]}


def declare(path: Path, *others: dict[str, Any]) -> None:
    """Have the manifest say that the SavedModel of `replace_model` has `others` beside its probabilities."""
    manifest = json.loads((path / MANIFEST).read_bytes())
    manifest["schema_version"] = 2
    manifest["signature"]["other_outputs"] = others
    (path / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    with np.load(path / GOLDEN_EXPECTED) as expected:
        images = expected["images"]
    means = images.mean((1, 2, 3), keepdims=True)[:, :, 0, 0] / 2550
    (path / GOLDEN_EXPECTED).write_bytes(expected_npz(images, np.repeat(means, 10, axis=1).astype(np.float32)))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("others", [[FEATURES], [HEAT_MAP], [HEAT_MAP, FEATURES]])
def test_declared_outputs_beside_the_probabilities_change_no_answer(
    path: Path, sign: Sign, engine: EngineName, others: list[dict[str, Any]]
) -> None:
    replace_model(path, others=[output["name"] for output in others])
    declare(path, *others)
    sign(path)
    model = load_model(path, engine=engine)
    for prepared in (False, True):
        if prepared:
            model.engine.prepare(16)
        found = model.engine.predict(model.bundle.golden.images)
        np.testing.assert_allclose(found, model.bundle.golden.probabilities, atol=1e-6)
    model.engine.close()
    assert open_bundle(path).manifest.signature.outputs[1:] == model.bundle.manifest.signature.other_outputs != ()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("found", "declared"),
    [([], [FEATURES]), (["features"], [FEATURES, HEAT_MAP]), (["features"], [HEAT_MAP]), (["features"], [])],
)
def test_model_whose_other_outputs_are_not_those_declared_is_refused(
    path: Path, sign: Sign, engine: EngineName, found: list[str], declared: list[dict[str, Any]]
) -> None:
    replace_model(path, others=found)
    declare(path, *declared)
    sign(path)
    with pytest.raises(BundleTampered, match=r"SavedModel's output is .*, but the manifest says probabilities"):
        load_model(path, engine=engine)


def test_model_whose_signature_has_another_name_is_refused(path: Path, sign: Sign) -> None:
    """OpenVINO does not know signatures by name: to it this is another model of the same tensors."""
    replace_model(path, signature="predict")
    sign(path)
    with pytest.raises(BundleTampered, match="has no signature 'serving_default', only: predict"):
        load_model(path, engine="tensorflow")
    with pytest.raises(SelfCheckFailed, match="openvino gives probabilities for the golden pictures that differ"):
        load_model(path, engine="openvino")


@pytest.mark.parametrize("engine", ENGINES)
def test_other_model_of_the_same_signature_fails_the_golden_check(path: Path, sign: Sign, engine: EngineName) -> None:
    replace_model(path)
    sign(path)
    with pytest.raises(SelfCheckFailed, match=f"{engine} gives probabilities for the golden pictures that differ"):
        load_model(path, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("content", [b"", b"not a SavedModel"])
def test_model_that_cannot_be_read_is_refused(path: Path, sign: Sign, engine: EngineName, content: bytes) -> None:
    (path / "saved_model.pb").write_bytes(content)
    sign(path)
    with pytest.raises(BundleTampered, match=r"SavedModel"):
        load_model(path, engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_that_are_cut_off_are_refused(path: Path, sign: Sign, engine: EngineName) -> None:
    data = path / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:1000])
    sign(path)
    with pytest.raises((BundleTampered, SelfCheckFailed), match=str(path)):
        load_model(path, engine=engine)


def test_openvino_is_closed_twice_without_harm(bundle_path: Path, models: dict[EngineName, LoadedModel]) -> None:
    engine = openvino.open_openvino(bundle_path, models["openvino"].bundle.manifest.signature, threads=1)
    engine.predict(random_batch(1))
    engine.close()
    engine.close()


def test_an_engine_that_cannot_compile_the_network_is_closed_and_another_taken(
    bundle_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = Fake("openvino", 0.0)

    def cannot_compile(batch_size: int) -> None:
        raise EngineUnavailable("OpenVINO cannot run it on this CPU.")

    monkeypatch.setattr(fails, "prepare", cannot_compile)
    install("openvino", opens(fails))
    model = load_model(bundle_path, threads=2)
    assert (model.engine.name, model.reason) == ("tensorflow", "openvino was rejected (engine_unavailable)")
    assert fails.closed
    model.engine.close()
