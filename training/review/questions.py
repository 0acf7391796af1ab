"""Turn findings into questions about a picture, or about a picture beside another. It does not show them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from app.contract.bundle import Bundle
from training.audit.checks import CHECKS
from training.audit.findings import Finding, worst_first
from training.audit.fix import late_first
from training.audit.labels import likeliest
from training.audit.report import Audit
from training.data.dataset import Dataset, Picture
from training.data.decisions import Answer
from training.evaluation.bundle_score import score_bundle
from training.evaluation.recorded_split import choose_pictures
from training.progress import Reporter
from training.report.mistakes import worst_mistakes

_LABEL = "wrong-label"
_COPIES = ("leakage", "near-leakage", "conflict", "duplicate", "near-duplicate")
_NEVER_KEPT = ("corrupt", "leakage")
"""Findings that cannot be answered with "keep": broken files cannot be trained on, and leakage invalidates the test."""


@dataclass(frozen=True)
class Question:
    """A question about a picture. `pictures` has that picture, and for copies the one beside it.

    `likely` has the picture's possible classes, the likeliest first, with their probabilities by the model that judged
    the labels. It is empty if no model did.
    """

    check: str
    reasons: tuple[str, ...]
    pictures: tuple[Picture, ...]
    likely: tuple[tuple[str, float], ...] = ()

    @property
    def can_keep(self) -> bool:
        return self.check not in _NEVER_KEPT

    @property
    def about(self) -> tuple[str, ...]:
        """A key that is the same for the same question in another session."""
        return self.check, *sorted(picture.id for picture in self.pictures)


def open_questions(audit: Audit, mistakes: Sequence[Finding], later: Iterable[tuple[str, ...]]) -> list[Question]:
    """Return the questions to decide, worst first.

    Those that a person postponed, `later` by `Question.about`, are last.
    """
    by_id = {picture.id: picture for picture in audit.dataset.pictures}
    pixels = {picture.id: look.pixels for picture, look in zip(audit.dataset.pictures, audit.looks, strict=True)}
    found: dict[tuple[str, ...], Question] = {}
    for finding in worst_first([*audit.findings, *mistakes]):
        for question in _questions(finding, by_id, pixels):
            known = found.setdefault(question.about, question)
            if known is not question and question.reasons[0] not in known.reasons:
                likely = known.likely or question.likely
                found[question.about] = replace(known, reasons=(*known.reasons, *question.reasons), likely=likely)
    last = set(later)
    return sorted(found.values(), key=lambda question: question.about in last)


def answered_questions(answers: Iterable[Answer]) -> list[Question]:
    """Return the questions of earlier sessions, in the order of their answers."""
    return [
        Question(each.decision.check, (each.decision.reason,), (each.picture, *each.others[:1])) for each in answers
    ]


def mistakes_of(bundle: Bundle, dataset: Dataset, *, cache: bool, reporter: Reporter) -> list[Finding]:
    """Return the test pictures that a bundle gets wrong, the most confident first. Raises an ImageclassError."""
    pictures, _ = choose_pictures(dataset, bundle, "test")
    known = [picture for picture in pictures if picture.label in bundle.manifest.labels]
    if not known:
        return []
    scored = score_bundle(bundle, known, engine="auto", on_bad_image="skip", cache=cache, reporter=reporter)
    labels = bundle.manifest.labels
    wrong = worst_mistakes(scored.probabilities, scored.tensors.targets, labels, most=len(known))
    return [
        Finding(
            _LABEL,
            (scored.tensors.pictures[each.row].id,),
            each.probability - each.of_own_label,
            f"{bundle.name}, version {bundle.version}, takes it for '{each.predicted}' ({each.probability:.2f} against "
            f"{each.of_own_label:.2f}).",
            likeliest(scored.probabilities[each.row], labels),
        )
        for each in wrong
    ]


def _questions(finding: Finding, by_id: Mapping[str, Picture], pixels: Mapping[str, str]) -> Iterator[Question]:
    """Yield a question for each picture of a finding that a person should look at.

    Of two copies, the question is about the one that `audit --fix` would leave out: that in the earlier split, or the
    later one by name. Groups that are divided between splits are not copies, and nothing can be seen in their pictures.
    """
    pictures = [by_id[name] for name in finding.pictures if name in by_id]
    if not pictures or CHECKS[finding.check].severity == "info":
        return
    if finding.check not in _COPIES:
        if len(pictures) == 1:
            yield Question(finding.check, (finding.sentence,), (pictures[0],), finding.likely)
        return
    if finding.check == "leakage" and len({pixels[picture.id] for picture in pictures}) > 1:
        return
    first, *copies = sorted(pictures, key=late_first)
    for copy in copies:
        yield Question(finding.check, (finding.sentence,), (copy, first), finding.likely)
