"""Start or resume a bulk job, as the command asks."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from app.cli.predict.bulk.here import ModelHere, check_has_features, model_named, version_named
from app.cli.predict.bulk.job import Description, begin, begun_with, held, run
from app.cli.predict.bulk.on_ray import cluster
from app.cli.predict.bulk.parts import Layout, check_format
from app.cli.predict.bulk.plan import Plan, Sources
from app.cli.predict.bulk.service import ServiceClassifier, check_version, served
from app.cli.predict.bulk.shard import Target
from app.cli.predict.bulk.worker_pool import Signals, WorkerPool, processes, threads
from app.cli.predict.options import PartFormat, Service
from app.cli.predict.pictures import Found, Unreadable, find, lines_of
from app.cli.predict.progress import Progress
from app.client import ModelReference, Retry, ServiceClient
from app.contract.answer_options import AnswerOptions
from app.contract.bundle import open_bundle
from app.contract.picture_files import LeftOut, describe_left_out
from app.errors import OutputNotWritable
from app.settings import Settings
from app.system.cores import available_cores
from app.system.wording import count_of


@dataclass(frozen=True)
class Job:
    """The options of a job that are the same for a model here and for a service."""

    arguments: list[str]
    files_from: str | None
    folder: Path
    resume: bool
    output: PartFormat
    options: AnswerOptions
    features: bool
    shard_size: int


OpenPool = Callable[[Target, Signals], AbstractContextManager[WorkerPool]]


def write_shards_here(job: Job, settings: Settings, *, ray_address: str | None = None) -> int:
    """Classify in this machine's processes, or in a Ray cluster; return how many pictures have no answer.

    Raises an ImageclassError.
    """
    check_format(job.output)
    with held(job.folder, resume=job.resume):
        begun = begun_with(job.folder)
        if begun is None:
            bundle = model_named(settings)
        else:  # its version, whichever is live by now
            bundle = open_bundle(version_named(settings, begun.model, begun.version))
        if job.features:
            check_has_features(bundle)
        model = ModelHere.of(settings, bundle, job.options, features=job.features)

        def open_pool(target: Target, signals: Signals) -> AbstractContextManager[WorkerPool]:
            if ray_address is not None:
                return cluster(model, target, signals, ray_address)
            return processes(model, target, signals, available_cores())

        reference = ModelReference(bundle.name, bundle.version)
        description = _description(job, settings.model or bundle.name, bundle.version)
        return _write(job, settings, reference, bundle.manifest.labels, description, begun, open_pool)


def write_shards_by_service(job: Job, settings: Settings, service: Service) -> int:
    """Classify by a service; return how many pictures have no answer. Raises an ImageclassError."""
    check_format(job.output)
    retry = Retry(retries=service.retries)
    with (
        held(job.folder, resume=job.resume),
        ServiceClient(service.url, api_key=service.api_key, retry=retry, max_connections=service.at_once) as client,
    ):
        begun = begun_with(job.folder)
        model = served(client, settings.model or (begun.model if begun else None))
        if begun is not None and begun.model == model.name:
            check_version(model.version, model.name, begun.version)

        def open_pool(target: Target, signals: Signals) -> AbstractContextManager[WorkerPool]:
            return threads(ServiceClassifier(client, model, job.options), target, signals, service.at_once)

        reference = ModelReference(model.name, model.version)
        description = _description(job, model.name, model.version)
        return _write(job, settings, reference, model.labels, description, begun, open_pool)


def _description(job: Job, model: str, version: int) -> Description:
    options = job.options
    return Description(
        output=job.output,
        top_k=options.top_k,
        features=job.features,
        shard_size=job.shard_size,
        model=model,
        version=version,
        min_probability=options.min_probability,
        false_alarms=options.false_alarms,
        set=options.set,
        set_method=options.set_method,
    )


def _write(
    job: Job,
    settings: Settings,
    reference: ModelReference,
    labels: Sequence[str],
    description: Description,
    begun: Description | None,
    open_pool: OpenPool,
) -> int:
    if begun is None:
        begin(job.folder, description)
    else:
        description.check_goes_on(begun)
    layout = Layout(job.output, reference, tuple(labels), job.options, job.features)
    target = Target(job.folder, layout, settings.max_upload_bytes)
    left_out: list[LeftOut] = []

    def sources() -> Iterator[Found | Unreadable]:
        left_out.clear()
        return find(chain(job.arguments, () if job.files_from is None else lines_of(job.files_from)), left_out)

    try:
        return _run(target, sources, job.shard_size, open_pool, left_out)
    except OSError as exc:
        raise OutputNotWritable(f"{exc.filename or job.folder} cannot be read or written: {exc.strerror}.") from exc


def _run(target: Target, sources: Sources, shard_size: int, open_pool: OpenPool, left_out: list[LeftOut]) -> int:
    plan = Plan.of(target, sources, shard_size)
    signals = Signals.new()
    with Progress(total=plan.total - plan.done, shown=sys.stderr.isatty(), said=True) as progress:
        if plan.done:
            progress.say(f"{count_of(plan.done, 'picture')} of {plan.total:,} are done already.")
        with open_pool(target, signals) as pool:
            failed = run(plan, pool, signals, progress)
        if line := describe_left_out(left_out):
            progress.say(line)
        if failed:
            progress.say(
                f"{count_of(failed, 'picture')} of {plan.total:,} without an answer; the column error says why."
            )
    return failed
