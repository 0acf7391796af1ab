"""One training run, from data to a published bundle: the steps in order, each done by its own module."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.contract.bundle import Bundle
from app.contract.picture_files import counted
from app.contract.preprocessing import PreprocessingSpec
from app.contract.store import ModelStore
from app.engines.loading import LoadedModel, load_model
from training.bundling.card import model_card
from training.bundling.export import check_can_publish, open_draft
from training.bundling.familiar import check_rate, learn_trust, within_data
from training.bundling.pruning import prune
from training.data.dataset import SPLITS, Picture, Split
from training.data.preprocessing import kind_of, preprocessing_for
from training.data.tensors import Tensors
from training.diagnosis import Answers, Facts, Problem, diagnose
from training.errors import ChiefPublishes, OptionError
from training.evaluation.against_live import AgainstLive
from training.evaluation.baseline import find_baseline
from training.evaluation.calibration.temperature import calibrate
from training.evaluation.examination import judge, metrics_of, score_splits
from training.evaluation.recorded_split import learned_pictures
from training.evaluation.sureness import Sureness
from training.fitting.checkpoint import Checkpoint
from training.fitting.distribution import Distribution
from training.fitting.resumable_training import (
    Trained,
    digest_of_data,
    known_answers,
    known_features,
    open_run_folder,
    prepare_tensorflow,
    train,
)
from training.fitting.run_folder import RUN_ID, Identity, published_version
from training.model.backbone import find_weights
from training.model.preset import Recipe
from training.model.tta import average_shifts
from training.options import FitOptions
from training.preparation import Prepared, load_splits, prepare
from training.progress import Reporter
from training.report.material import Material
from training.report.report import write_report


def train_and_publish(options: FitOptions, reporter: Reporter, *, again: str | None = None) -> LoadedModel:
    """Train on `options.data` and publish the result.

    `again` is the command that resumes the run if it is stopped. Raises an ImageclassError that names the problem; in a
    worker that is not the chief, ChiefPublishes once its part is done.
    """
    store = ModelStore(options.model_store)
    again = again or f"{options.command(here=True)} --resume"
    published = _published_before(store, options, reporter) or _publish_new_version(
        store, options, reporter, again=again
    )
    if options.keep is not None:
        prune(store, options.name, keep=options.keep, reporter=reporter)
    return published


def _published_before(store: ModelStore, options: FitOptions, reporter: Reporter) -> LoadedModel | None:
    """Return the version that the run to resume had published before it was killed; None if it had published none."""
    if not options.resume or options.strategy == "multi_worker":
        return None
    version = published_version(store, options.name, options.command(), say=reporter.say)
    if version is None:
        return None
    reporter.say(f"the unfinished run had published version {version} when it was stopped, so there is nothing to do")
    return load_model(store.path(options.name, version))


def _publish_new_version(store: ModelStore, options: FitOptions, reporter: Reporter, *, again: str) -> LoadedModel:
    preset = options.preset
    distribution = prepare_tensorflow(options.strategy, deterministic=options.deterministic, reporter=reporter)
    if distribution.is_chief:
        check_can_publish(store, options.name)
    about = None if options.about is None else _read_text(options.about)
    if preset.backbone is not None:
        find_weights(preset.backbone)

    prepared = prepare(options, reporter)
    spec = spec_of(prepared, options)
    baseline = _baseline(options, store, prepared, reporter)
    reporter.say(_data_line(prepared, spec))
    splits = load_splits(prepared, spec, reporter)

    with open_run_folder(
        store,
        options.name,
        identity_of(options, splits),
        resume=options.resume,
        again=again,
        distribution=distribution,
        reporter=reporter,
    ) as run_folder:
        trained = train_on(
            prepared,
            options,
            splits,
            start=run_folder.checkpoint(),
            keep=run_folder.keep,
            distribution=distribution,
            reporter=reporter,
        )
        if not distribution.is_chief:
            raise ChiefPublishes("This worker has done its part; the chief publishes.")
        return publish_trained(
            trained, options, prepared, splits, run=run_folder.id, about=about, baseline=baseline, reporter=reporter
        )


def identity_of(options: FitOptions, splits: Mapping[Split, Tensors]) -> Identity:
    """Return the identity of a run: it must be equal for a run that resumes it."""
    return {"command": options.command(), "data": digest_of_data(splits["train"], splits.get("validation"))}


def train_on(
    prepared: Prepared,
    options: FitOptions,
    splits: Mapping[Split, Tensors],
    *,
    start: Checkpoint | None = None,
    keep: Callable[[Checkpoint], None],
    distribution: Distribution,
    reporter: Reporter,
) -> Trained:
    """Train on these splits as the options say. Raises what `train` raises."""
    return train(
        options.preset,
        splits["train"],
        splits.get("validation"),
        spec=spec_of(prepared, options),
        labels=prepared.dataset.labels,
        seed=options.seed,
        logs=options.logs,
        start=start,
        keep=keep,
        distribution=distribution,
        cache=prepared.cache,
        reporter=reporter,
    )


def publish_trained(
    trained: Trained,
    options: FitOptions,
    prepared: Prepared,
    splits: Mapping[Split, Tensors],
    *,
    run: str | None,
    about: str | None = None,
    baseline: Bundle | None = None,
    reporter: Reporter,
) -> LoadedModel:
    """Calibrate, evaluate, check and publish a network that was trained with `options` in the run of this id.

    Raises an ImageclassError.
    """
    store, preset = ModelStore(options.model_store), options.preset
    dataset, assignment, counts = prepared.dataset, prepared.assignment, prepared.assignment.counts()
    spec = spec_of(prepared, options)
    network, part = trained.network, trained.part
    if preset.views == "shifted":
        network = part = average_shifts(network)
    calibration = calibrate(part, trained.validation, options.calibration)
    reporter.say(calibration.sentence())
    features = known_features(trained, prepared.cache, reporter)
    known = known_answers(trained, features)
    record = _training_record(options, trained.recipe, prepared, splits)
    record |= {"audit": prepared.inspection.record, "calibration": calibration.as_dict(), RUN_ID: run}

    with (
        open_draft(store, options.name, labels=dataset.labels, preprocessing=spec) as draft,
        _problems_at_the_end(reporter) as problems,
    ):
        engine = draft.save(network, _golden(splits))
        scored = score_splits(engine, splits, dataset.labels, loss=preset.recipe.loss, known=known, reporter=reporter)
        metrics = metrics_of(scored, calibration, prepared.groups, trained.result)
        sureness = None if options.min_precision is None else Sureness.of(scored, options.min_precision)
        if sureness is not None:
            reporter.say(sureness.sentence())
            metrics["sureness"] = sureness.as_dict()
        trust = learn_trust(
            network,
            engine,
            draft.signature,
            splits["train"],
            splits.get("validation"),
            known=features,
            keep_thumbnails=options.keep_thumbnails,
            seed=options.seed,
            reporter=reporter,
        )
        facts = Facts(
            options=options,
            counts=counts,
            pictures=kind_of(dataset),
            epochs=metrics["epochs"],
            head_accuracy=metrics["head_accuracy"],
            scores={split: metrics[split] for split in SPLITS},
            audit=prepared.inspection.record,
            answers=Answers.of(scored),
        )
        problems.extend(diagnose(facts))
        metrics["diagnosis"] = [problem.as_dict() for problem in problems]
        if "test" in scored:
            judge(
                scored["test"],
                options.requirements,
                baseline,
                max_recall_drop=options.max_recall_drop,
                cache=options.cache,
                reporter=reporter,
            )
        against_live = AgainstLive.of(
            store,
            options.name,
            draft.version,
            scored.get("test"),
            labels=dataset.labels,
            cache=options.cache,
            reporter=reporter,
        )
        metrics["against_live"] = against_live.as_dict()
        page = None
        if options.report:
            material = Material(
                name=options.name,
                version=draft.version,
                dataset=dataset,
                counts=counts,
                preprocessing=spec,
                training=record,
                splits={split: splits.get(split) for split in SPLITS},
                probabilities={split: found.probabilities for split, found in scored.items()},
                metrics=metrics,
                audit=prepared.inspection.findings,
            )
            report = write_report(material, folder=draft.folder, engine=engine, reporter=reporter)
            page, metrics = report.page, {**metrics, **report.metrics}
        card = model_card(
            name=options.name,
            version=draft.version,
            labels=dataset.labels,
            preprocessing=spec,
            command=options.command(),
            data=dataset.origin,
            counts=counts,
            metrics=metrics,
            about=about,
        )
        return draft.publish(
            metrics=metrics,
            card=card,
            report=page,
            training=record,
            split=assignment.summary(),
            split_csv=assignment.to_csv(),
            held_back=against_live.why_held_back(),
            min_probability=None if sureness is None else sureness.minimum,
            trust=trust,
            false_alarms=options.false_alarms,
        )


def spec_of(prepared: Prepared, options: FitOptions) -> PreprocessingSpec:
    """Return the preprocessing that the options choose for these pictures. Raises OptionError."""
    return preprocessing_for(prepared.dataset, options.preset.preprocessing, size=options.size, colour=options.colour)


def _baseline(options: FitOptions, store: ModelStore, prepared: Prepared, reporter: Reporter) -> Bundle | None:
    """Return the version to compare with, None for none. Before the training, report facts that weaken the comparison.

    Raises OptionError or a BundleError.
    """
    test = prepared.assignment.pictures("test")
    if options.min_precision is not None and not prepared.assignment.pictures("validation"):
        raise OptionError("--min-precision needs validation pictures. Give --validation a share, such as 0.1.")
    check_rate(options.false_alarms, len(prepared.assignment.pictures("validation")))
    if (options.requirements or options.against) and not test:
        raise OptionError("--require and --against need test pictures. Give --test a share, such as --test 0.2.")
    if options.against is None:
        return None
    baseline = find_baseline(store, options.name, options.against)
    if baseline is None:
        reporter.say(f"{options.name} has no version yet, so there is none to compare with")
        return None
    learned = learned_pictures(baseline, prepared.dataset.origin, test)
    if learned:
        reporter.say(
            f"version {baseline.version} was trained on {learned:,} of the test pictures: its figures are too high"
        )
    return baseline


@contextmanager
def _problems_at_the_end(reporter: Reporter) -> Iterator[list[Problem]]:
    """Report, when the block ends or fails, the problems that it added to this list.

    They are then the last lines that a person reads, and also concern a model that is not good enough to be published.
    """
    problems: list[Problem] = []
    try:
        yield problems
    finally:
        for problem in problems:
            reporter.say(problem.as_text())


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise OptionError(f"--about {file} cannot be read: {exc}.") from exc


def _golden(splits: Mapping[Split, Tensors]) -> list[Picture]:
    """Return pictures of each class in turn, from a held-out split if there is one."""
    by_label: dict[str, list[Picture]] = defaultdict(list)
    golden = next(splits[split] for split in reversed(SPLITS) if split in splits)
    for picture in golden.pictures:
        by_label[picture.label].append(picture)
    rounds = max(len(pictures) for pictures in by_label.values())
    return [pictures[turn] for turn in range(min(rounds, 16)) for pictures in by_label.values() if turn < len(pictures)]


def _training_record(
    options: FitOptions, recipe: Recipe, prepared: Prepared, splits: Mapping[Split, Tensors]
) -> dict[str, Any]:
    return {
        "command": options.command(),
        "data": prepared.dataset.origin,
        "preset": options.preset.name,
        "seed": options.seed,
        "recipe": asdict(recipe),
        "layers": options.preset.describe_layers(),
        "views": options.preset.views,
        "left_out": counted(prepared.dataset.left_out),
        "skipped": [within_data(bad.id) for tensors in splits.values() for bad in tensors.skipped],
    }


def _data_line(prepared: Prepared, spec: PreprocessingSpec) -> str:
    counts = {split: sum(classes.values()) for split, classes in prepared.assignment.counts().items()}
    return (
        f"{prepared.dataset.origin}: {len(prepared.dataset.labels)} classes; {counts['train']:,} pictures to train on, "
        f"{counts['validation']:,} for validation, {counts['test']:,} for the test; "
        f"as {spec.height}x{spec.width} {spec.colour}"
    )
