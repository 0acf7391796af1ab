"""Load a bundle on the fastest engine whose answers agree with training's."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name

from app.contract.bundle import Bundle, Signature, open_bundle
from app.engines.engine import Engine, EngineFactory, Precision, PrecisionChoice
from app.engines.precision import MAX_BF16_DIFFERENCE, check_precision
from app.engines.proof import MAX_PROBABILITY_DIFFERENCE, Proof, check_probabilities
from app.engines.registry import ENGINES, EngineChoice, EngineName
from app.errors import BundleTampered, EngineUnavailable, ImageclassError, SelfCheckFailed
from app.system.cores import available_cores


@dataclass(frozen=True)
class LoadedModel:
    """A bundle on a proven engine, which may use `threads` cores. The reasons explain the choice of engine and
    precision; `rejections` say why other engines were rejected."""

    bundle: Bundle
    engine: Engine
    reason: str
    proof: Proof
    rejections: tuple[ImageclassError, ...] = ()
    precision: Precision = "f32"
    precision_reason: str = "set to f32"
    threads: int = 1

    @property
    def max_probability_difference(self) -> float:
        """By how much a probability may differ from TensorFlow's."""
        return MAX_PROBABILITY_DIFFERENCE if self.precision == "f32" else MAX_BF16_DIFFERENCE


def load_model(
    path: Path,
    *,
    engine: EngineChoice = "auto",
    threads: int | None = None,
    precision: PrecisionChoice = "f32",
    pause: Callable[[], None] = lambda: None,
) -> LoadedModel:
    """Open the bundle at `path` and check it whole. `pause` is called between the steps.

    The engine "auto" is the first in the registry that passes the golden check; the precision "auto" is bfloat16 if the
    CPU has it and the model's answers barely change (see `check_precision`). Raises a BundleError or EngineUnavailable
    with the reason.
    """
    bundle = open_bundle(path)
    _ = bundle.trust  # read once here, so that damage rejects the bundle and not a request
    pause()
    threads = threads or available_cores()
    loaded = replace(_load_first_proven(bundle, engine, threads, pause), threads=threads)
    return loaded if precision == "f32" else _in_bf16_if_proven(loaded, threads)


def open_engine(
    name: EngineName, path: Path, signature: Signature, *, threads: int, precision: Precision = "f32"
) -> Engine:
    """Import the engine's module and load the SavedModel at `path` on it; see `EngineFactory`."""
    factory: EngineFactory = resolve_name(ENGINES[name].factory)
    return factory(path, signature, threads=threads, precision=precision)


def _in_bf16_if_proven(exact: LoadedModel, threads: int) -> LoadedModel:
    bundle = exact.bundle
    try:
        fast = open_engine(exact.engine.name, bundle.path, bundle.manifest.signature, threads=threads, precision="bf16")
    except EngineUnavailable as exc:
        return replace(exact, precision_reason=str(exc))
    try:
        difference = check_precision(bundle, exact.engine, fast)
        proof = check_probabilities(bundle, fast, max_difference=MAX_BF16_DIFFERENCE)
    except (EngineUnavailable, SelfCheckFailed) as exc:  # a network is compiled when it is first used
        fast.close()
        return replace(exact, precision_reason=str(exc))
    exact.engine.close()
    reason = f"bf16 keeps every label and moves probabilities by at most {difference:.2g}"
    return replace(exact, engine=fast, proof=proof, precision="bf16", precision_reason=reason)


def _load_first_proven(bundle: Bundle, choice: EngineChoice, threads: int, pause: Callable[[], None]) -> LoadedModel:
    if choice != "auto":
        engine, proof = _open_proven(choice, bundle, threads, pause)
        return LoadedModel(bundle, engine, f"set to {choice}", proof)
    rejected: dict[EngineName, ImageclassError] = {}
    for name in ENGINES:
        try:
            engine, proof = _open_proven(name, bundle, threads, pause)
        except (EngineUnavailable, SelfCheckFailed, BundleTampered) as exc:
            rejected[name] = exc
            continue
        reason = "the fastest engine, and it passed the golden check"
        if rejected:
            reason = "; ".join(f"{other} was rejected ({error.code})" for other, error in rejected.items())
        return LoadedModel(bundle, engine, reason, proof, tuple(rejected.values()))
    # A fault of the bundle says more than a missing engine.
    errors = list(rejected.values())
    raise next((error for error in errors if not isinstance(error, EngineUnavailable)), errors[0])


def _open_proven(name: EngineName, bundle: Bundle, threads: int, pause: Callable[[], None]) -> tuple[Engine, Proof]:
    engine = open_engine(name, bundle.path, bundle.manifest.signature, threads=threads)
    pause()
    try:
        engine.prepare(1)  # the golden pictures are checked one at a time
        pause()
        return engine, check_probabilities(bundle, engine)
    except (EngineUnavailable, SelfCheckFailed):
        engine.close()
        raise
