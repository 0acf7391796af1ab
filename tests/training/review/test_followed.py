"""`fit`, `audit`, `audit --fix` and the next review go by what a person decided; the pictures stay as they are."""

import csv
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from app.contract.bundle import open_bundle
from tests.training.fit_options import fit_options
from training.__main__ import cli
from training.audit.findings import Finding
from training.audit.pipeline import AuditOptions, run_audit
from training.data.decisions import decisions_file
from training.data.sources import open_data
from training.model.presets import PRESETS
from training.preparation import prepare
from training.progress import Reporter
from training.review.journal import open_journal
from training.review.questions import Question, mistakes_of, open_questions
from training.review.session import Session


def asked(data: Path, *more: Finding, later: tuple[tuple[str, ...], ...] = ()) -> list[Question]:
    dataset = open_data(str(data), tolerant=True)
    return open_questions(run_audit(dataset, AuditOptions(near=False, labels=False), Reporter()), more, later)


def decide(data: Path, *decisions: tuple[str, str, str]) -> None:
    """Answer a question about the picture of that id by an action and a label."""
    doubted = Finding("wrong-label", ("cats/05.png",), 0.9, "Looks like 'dogs'.", (("dogs", 0.93),))
    dataset, questions = open_data(str(data), tolerant=True), asked(data, doubted)
    with open_journal(decisions_file(data)) as journal:
        session = Session(questions, [], labels=dataset.labels, was=dataset.decided.was, journal=journal)
        for name, action, label in decisions:
            number = next(place for place, each in enumerate(questions) if each.pictures[0].id == name)
            session.decide(number, action, label=label)  # type: ignore[arg-type]


def audit(data: Path, *options: str) -> Result:
    words = ["audit", "--data", str(data), "--out", str(data.parent / "audit"), "--no-near", "--no-labels", *options]
    return CliRunner().invoke(cli, words)


@pytest.fixture
def decided(defects: Path) -> Path:
    decide(
        defects,
        ("cats/broken.png", "drop", ""),
        ("dogs/conflict.png", "relabel", "cats"),
        ("cats/copy.png", "keep", ""),
        ("cats/05.png", "relabel", "dogs"),
    )
    return defects


def test_copies_are_asked_about_side_by_side_and_others_alone(defects: Path) -> None:
    found = {each.check: [picture.id for picture in each.pictures] for each in asked(defects)}
    assert found["duplicate"] == ["cats/copy.png", "cats/01.png"]
    assert found["conflict"] == ["dogs/conflict.png", "cats/03.png"]
    assert found["corrupt"] == ["cats/broken.png"]


def test_a_doubt_of_two_models_is_one_question_and_those_left_for_later_come_last(defects: Path) -> None:
    doubts = [Finding("wrong-label", ("cats/05.png",), score, f"Doubt {score}.") for score in (0.9, 0.8)]
    questions = asked(defects, *doubts, later=(("corrupt", "cats/broken.png"),))
    assert [each.reasons for each in questions if each.check == "wrong-label"] == [("Doubt 0.9.", "Doubt 0.8.")]
    assert questions[-1].check == "corrupt"


def test_fit_learns_the_labels_that_were_decided_on(decided: Path, tmp_path: Path) -> None:
    prepared = prepare(fit_options(tmp_path / "store", PRESETS["seed"], data=str(decided)), Reporter())
    labels = {picture.id: picture.label for picture, _ in prepared.assignment.rows}
    assert (labels["cats/05.png"], labels["dogs/conflict.png"]) == ("dogs", "cats")
    assert "cats/broken.png" not in labels
    assert "cats/copy.png" in labels


def test_the_next_audit_asks_nothing_twice(decided: Path) -> None:
    again = audit(decided, "--fail-on", "corrupt,conflict")
    assert again.exit_code == 0, again.output
    assert "2 pictures relabelled and 1 picture dropped by a person's decisions" in again.output
    assert "1 finding that a person has answered left out." in again.output
    assert "copy.png" not in {name for each in asked(decided) for name in each.about if name != "cats/03.png"}


def test_a_cleaned_copy_has_the_labels_and_the_copies_that_a_person_wants(decided: Path, tmp_path: Path) -> None:
    before = {file: file.read_bytes() for file in decided.rglob("*.png")}
    done = audit(decided, "--fix", str(tmp_path / "clean"))
    assert "1 dropped" in done.output
    written = {path.relative_to(tmp_path / "clean").as_posix() for path in (tmp_path / "clean").rglob("*.png")}
    assert {"dogs/cats-05.png", "cats/copy.png", "cats/01.png"} <= written
    assert not {name for name in written if "broken" in name}
    with (tmp_path / "clean" / "left-out.csv").open(newline="") as stream:
        reasons = {row["path"]: row["reason"] for row in csv.DictReader(stream)}
    assert reasons["cats/broken.png"] == "dropped: a person decided so"
    assert {file: file.read_bytes() for file in decided.rglob("*.png")} == before
    assert audit(decided, "--fix", str(tmp_path / "clean.csv")).exit_code == 0
    labels = {Path(each.id).name: each.label for each in open_data(str(tmp_path / "clean.csv")).pictures}
    assert labels["05.png"] == "dogs"


def test_the_audit_ends_with_the_command_that_acts_on_it(defects: Path, tmp_path: Path) -> None:
    said = audit(defects, "--fix", str(tmp_path / "clean")).stdout.splitlines()
    assert said[-1].startswith("To relabel, keep or drop these pictures, one key press each: ")
    assert said[-1].endswith(f"-m training review {defects}")
    assert f"-m training review {defects}" in (defects.parent / "audit" / "audit.html").read_text()


def test_what_has_no_place_for_decisions_is_said() -> None:
    done = CliRunner().invoke(cli, ["review", "digits"])
    assert done.exit_code == 1
    assert "write it to a folder first, with audit --fix FOLDER" in done.stderr


def test_nothing_to_decide_is_said(pets: Path) -> None:
    done = CliRunner().invoke(cli, ["review", str(pets), "--no-near", "--no-labels"])
    assert done.exit_code == 0, done.output
    assert "Nothing was found, so there is nothing to decide." in done.output


def test_the_mistakes_of_a_model_are_asked_about_with_what_it_takes_them_for(trained_store: Path) -> None:
    bundle = open_bundle(trained_store / "digits" / "1")
    found = mistakes_of(bundle, open_data("digits"), cache=False, reporter=Reporter())
    labels = {picture.id: picture.label for picture in open_data("digits").pictures}
    assert found
    for each in found:
        assert each.likely[0][0] != labels[each.pictures[0]]
        assert each.sentence.startswith(f"digits, version 1, takes it for '{each.likely[0][0]}'")


def test_the_command_serves_until_it_is_interrupted_and_sums_up(defects: Path, repository: Path) -> None:
    words = [sys.executable, "-m", "training", "review", str(defects), "--no-near", "--no-labels"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=repository) as running:
        assert running.stdout is not None
        counted, address = running.stdout.readline(), running.stdout.readline().split()[-1]
        assert counted.startswith("3 questions to decide.")
        with httpx.Client() as person:
            assert person.get(address).status_code == 200
            home = address.partition("?")[0]
            given = {"question": 0, "action": "drop"}
            assert person.post(f"{home}answers", json=given, headers={"Origin": home[:-1]}).status_code == 200
            refused = CliRunner().invoke(cli, ["review", str(defects)])
            assert (refused.exit_code, "Another review of this data is running" in refused.stderr) == (1, True)
        running.send_signal(signal.SIGINT)
        assert "1 drop. fit, sweep, evaluate and audit follow it." in running.stdout.read()
        assert running.wait() == 0
