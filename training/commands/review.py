"""The command `python -m training review`. It finds and serves nothing itself."""

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from app.contract.bundle import open_bundle
from app.contract.store import ModelStore
from app.system.invocation import command_line
from app.system.wording import count_of
from training.audit.cache import Cache
from training.audit.findings import Finding
from training.audit.pipeline import AuditOptions, run_audit
from training.commands.declared_options import command
from training.data.dataset import Dataset
from training.data.decisions import answers, decisions_file, standing
from training.data.sources import open_data
from training.data.tensor_cache import TensorCache
from training.errors import OptionError
from training.options import CacheOption, ModelStoreOption
from training.progress import Reporter
from training.review.journal import Journal, open_journal
from training.review.questions import answered_questions, mistakes_of, open_questions
from training.review.session import Session


@command
def review(
    data: Annotated[str, typer.Argument(help="The folder, archive, CSV, .npz or IDX file to correct.")],
    name: Annotated[
        str | None,
        typer.Option(help="Also ask about the test pictures that the newest version of this model gets wrong."),
    ] = None,
    model_store: ModelStoreOption = Path("model_store"),
    near: Annotated[bool, typer.Option(help="Ask about near duplicates.")] = True,
    labels: Annotated[bool, typer.Option(help="Ask about labels that a model doubts; this trains models.")] = True,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes any free port.")] = 0,
    cache: CacheOption = True,
) -> None:
    """Correct labelled pictures on a page in the browser: relabel, keep, drop, or leave for later.

    Each decision is saved to a CSV file at once, and fit, sweep, evaluate and audit apply it. Pictures are not touched.
    """
    if not Path(data).exists():
        raise OptionError(
            f"There is no file or folder '{data}' in which to save decisions. To correct a named data set, write it "
            "to a folder first, with audit --fix FOLDER."
        )
    reporter = Reporter()
    with open_journal(decisions_file(Path(data))) as journal:
        session = _session(data, name, ModelStore(model_store), journal, near, labels, cache, reporter)
        if not session.questions:
            reporter.say("Nothing was found, so there is nothing to decide.")
            return
        from training.review.server import serve_review  # FastAPI and uvicorn: not for --help

        fit = ["training", "fit", "--data", data, *(["--name", name] if name else [])]
        file = decisions_file(Path(data))
        with suppress(KeyboardInterrupt):  # which is how a review ends
            serve_review(
                session,
                port=port,
                data=data,
                after=command_line(*fit),
                ready=lambda url: _say_ready(url, session, file),
            )
        counts = Counter(each.action for each in standing(journal.decisions))
    listed = ", ".join(f"{count:,} {action}" for action, count in counts.most_common()) or "no decisions"
    typer.echo(f"\n{file}: {listed}. fit, sweep, evaluate and audit follow it.")


def _session(
    data: str,
    name: str | None,
    store: ModelStore,
    journal: Journal,
    near: bool,
    labels: bool,
    cache: bool,
    reporter: Reporter,
) -> Session:
    dataset = open_data(data, say=reporter.say, tolerant=True)
    kept = Cache.of_user(data, keeps=cache)
    tensors = TensorCache.of_user(keeps=cache, say=reporter.say)
    audit = run_audit(dataset, AuditOptions(near=near, labels=labels, cache=kept, tensors=tensors), reporter)
    mistakes = _mistakes(name, store, dataset, cache, reporter)
    was = dataset.decided.was
    given = answers(dataset.of_source(), journal.decisions)
    later = [each for each in given if each.decision.action == "later"]
    asked = open_questions(audit, mistakes, (each.about for each in answered_questions(later)))
    again = {each.about for each in asked}
    past = [
        (answer, question)
        for answer, question in zip(given, answered_questions(given), strict=True)
        if answer.decision.action != "later" and question.about not in again
    ]
    return Session(
        [*(question for _, question in past), *asked],
        [answer.decision for answer, _ in past],
        labels=sorted({*dataset.labels, *was.values()}),
        was=was,
        journal=journal,
    )


def _mistakes(name: str | None, store: ModelStore, dataset: Dataset, cache: bool, reporter: Reporter) -> list[Finding]:
    if name is None:
        return []
    if not store.versions(name):
        reporter.say(f"{store.root} has no version of {name} yet, so its mistakes are not asked about.")
        return []
    return mistakes_of(open_bundle(store.newest(name)), dataset, cache=cache, reporter=reporter)


def _say_ready(url: str, session: Session, file: Path) -> None:
    open_ones = sum(session.answer(number) is None for number in range(len(session.questions)))
    typer.echo(
        f"{count_of(open_ones, 'question')} to decide. Each decision is saved to {file} at once. Ctrl-C ends "
        "the review."
    )
    typer.echo(f"Open in a browser on this machine: {url}")
