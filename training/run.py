"""One training run, from data to a published bundle: the steps in order, each done by its own module."""

from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.contract.bundle import Bundle
from app.contract.preprocessing import PreprocessingSpec
from app.contract.store import ModelStore
from app.engines.engine import Engine
from app.engines.loading import LoadedModel, load_model
from training.bundling.card import model_card
from training.bundling.export import Contents, Measured, Report, check_can_publish, publish
from training.bundling.pruning import prune
from training.data.dataset import Dataset, Picture
from training.data.preprocessing import preprocessing_for
from training.data.split import Assignment
from training.errors import ChiefPublishes, OptionError
from training.evaluation.baseline import find_baseline
from training.evaluation.calibration.temperature import calibrate
from training.evaluation.diagnosis import Finding
from training.evaluation.examination import Splits, Trained, find_troubles, judge, measure
from training.evaluation.recorded_split import learned_pictures
from training.fitting.resumable import digest_of_data, open_run, prepare_tensorflow, train
from training.fitting.run_folder import RUN_ID, published_run
from training.model.tta import average_shifts
from training.options import FitOptions
from training.preparation import load_splits, prepare
from training.progress import Reporter
from training.report.material import Material
from training.report.report import write_report


def run_fit(options: FitOptions, reporter: Reporter) -> LoadedModel:
    """Train on `options.data` and publish the result.

    Raises an ImageclassError with what stood in the way; for a worker that has done its part that is ChiefPublishes.
    """
    store = ModelStore(options.model_store)
    published = _published_before(store, options, reporter) or _train_and_publish(store, options, reporter)
    if options.keep is not None:
        prune(store, options.name, keep=options.keep, reporter=reporter)
    return published


def _published_before(store: ModelStore, options: FitOptions, reporter: Reporter) -> LoadedModel | None:
    """Return what the run to be resumed had published already when it was killed; None where it had not."""
    if not options.resume or options.strategy == "multi_worker":
        return None
    version = published_run(store, options.name, options.command(), say=reporter.say)
    if version is None:
        return None
    reporter.say(f"the unfinished run had published version {version} when it was stopped, so there is nothing to do")
    return load_model(store.path(options.name, version))


def _train_and_publish(store: ModelStore, options: FitOptions, reporter: Reporter) -> LoadedModel:
    distribution = prepare_tensorflow(options, reporter)
    if distribution.is_chief:
        check_can_publish(store, options.name)
    about = None if options.about is None else _read_text(options.about)
    prepared = prepare(options, reporter)
    dataset, inspection, assignment = prepared.dataset, prepared.inspection, prepared.assignment
    spec = preprocessing_for(dataset, options.preset.preprocessing, size=options.size, colour=options.colour)
    baseline = _baseline(options, store, dataset, assignment, reporter)
    reporter.say(_data_line(dataset, assignment, spec))

    tensors = load_splits(prepared, spec, reporter)
    splits = Splits(tensors["train"], tensors.get("validation"), tensors.get("test"))
    data = digest_of_data(splits.train, splits.validation)
    with open_run(store, options, data, distribution=distribution, reporter=reporter) as run:
        network, result = train(
            options,
            splits.train,
            splits.validation,
            spec=spec,
            labels=dataset.labels,
            run=run,
            distribution=distribution,
            reporter=reporter,
        )
        if not distribution.is_chief:
            raise ChiefPublishes("This worker has done its part; the chief publishes.")
        if options.preset.views == "shifted":
            network = average_shifts(network)

        calibration = calibrate(network, splits.validation, options.calibration)
        reporter.say(calibration.sentence())

        trained = Trained(options, assignment, inspection, prepared.groups, splits, result, calibration)
        command = options.command()
        counts = assignment.counts()
        record = _training_record(options, command, dataset, splits)
        record |= {"audit": inspection.record, "calibration": calibration.as_dict(), RUN_ID: run.id}
        troubles: list[Finding] = []

        def measure_and_judge(engine: Engine) -> Measured:
            measured = measure(trained, engine, reporter)
            troubles.extend(find_troubles(trained, measured))
            measured.metrics["diagnosis"] = [finding.as_dict() for finding in troubles]
            judge(trained, measured, baseline, reporter)
            return measured

        def report(folder: Path, version: int, engine: Engine, measured: Measured) -> Report:
            material = Material(
                name=options.name,
                version=version,
                dataset=dataset,
                counts=counts,
                preprocessing=spec,
                training=record,
                splits=splits.by_name(),
                probabilities=measured.probabilities,
                metrics=measured.metrics,
                audit=inspection.findings,
            )
            return write_report(material, folder=folder, engine=engine, reporter=reporter)

        contents = Contents(
            labels=dataset.labels,
            preprocessing=spec,
            golden=_golden(splits),
            training=record,
            split=assignment.summary(),
            split_csv=assignment.to_csv(),
            measure=measure_and_judge,
            card=lambda version, metrics: model_card(
                name=options.name,
                version=version,
                labels=dataset.labels,
                preprocessing=spec,
                command=command,
                data=dataset.origin,
                counts=counts,
                metrics=metrics,
                about=about,
            ),
            report=report if options.report else None,
        )
        try:
            return publish(network, contents, store, options.name)
        finally:
            for trouble in troubles:
                reporter.say(trouble.told())


def _baseline(
    options: FitOptions, store: ModelStore, dataset: Dataset, assignment: Assignment, reporter: Reporter
) -> Bundle | None:
    """Return the version to compare with, None for none; what can be said against the comparison is said before the
    training. Raises OptionError or a BundleError."""
    if (options.requirements or options.against) and not any(assignment.counts()["test"].values()):
        raise OptionError("--require and --against need test pictures. Give --test a share, as in --test 0.2.")
    if options.against is None:
        return None
    baseline = find_baseline(store, options.name, options.against)
    if baseline is None:
        reporter.say(f"{options.name} has no version yet, so there is none to compare with")
        return None
    learned = learned_pictures(baseline, dataset.origin, assignment.pictures("test"))
    if learned:
        reporter.say(
            f"version {baseline.version} has learned {learned:,} of the test pictures: its figures are too good"
        )
    return baseline


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise OptionError(f"--about {file} cannot be read: {exc}.") from exc


def _golden(splits: Splits) -> list[Picture]:
    """Return pictures in turn from every class, of those that the network has not learned where there are any."""
    by_label: dict[str, list[Picture]] = defaultdict(list)
    for picture in (splits.test or splits.validation or splits.train).pictures:
        by_label[picture.label].append(picture)
    rounds = max(len(pictures) for pictures in by_label.values())
    return [pictures[turn] for turn in range(min(rounds, 16)) for pictures in by_label.values() if turn < len(pictures)]


def _training_record(options: FitOptions, command: str, dataset: Dataset, splits: Splits) -> dict[str, Any]:
    recipe = asdict(options.preset.recipe)
    tensors = [part for part in (splits.train, splits.validation, splits.test) if part is not None]
    return {
        "command": command,
        "data": dataset.origin,
        "preset": options.preset.name,
        "seed": options.seed,
        "recipe": recipe,
        "layers": options.preset.describe_layers(),
        "views": options.preset.views,
        "skipped": [_within_data(bad.id) for part in tensors for bad in part.skipped],
    }


def _within_data(picture_id: str) -> str:
    """Return an id without the folders of this machine, which a list of absolute paths would tell to every client."""
    return Path(picture_id).name if Path(picture_id).is_absolute() else picture_id


def _data_line(dataset: Dataset, assignment: Assignment, spec: PreprocessingSpec) -> str:
    counts = {split: sum(classes.values()) for split, classes in assignment.counts().items()}
    return (
        f"{dataset.origin}: {len(dataset.labels)} classes; {counts['train']:,} pictures to train on, "
        f"{counts['validation']:,} for validation, {counts['test']:,} for the test; "
        f"as {spec.height}x{spec.width} {spec.colour}"
    )
