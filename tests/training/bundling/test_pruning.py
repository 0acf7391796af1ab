"""What becomes of old versions when a new one is published."""

import json
import shutil
from pathlib import Path

from rich.console import Console
from typer.testing import CliRunner

from app.contract.store import ModelStore
from training.__main__ import cli
from training.bundling.pruning import prune
from training.progress import Reporter


def reporter(lines: list[str]) -> Reporter:
    found = Reporter(Console(quiet=True))
    found.say = lines.append  # type: ignore[method-assign, assignment]
    return found


def add_versions(store: Path, *versions: int) -> ModelStore:
    for version in versions:
        folder = store / "digits" / str(version)
        shutil.copytree(store / "digits" / "1", folder)
        manifest = json.loads((folder / "manifest.json").read_bytes())
        (folder / "manifest.json").write_text(json.dumps({**manifest, "version": version}))
    return ModelStore(store)


def test_old_versions_go_but_never_the_pinned_or_the_newest(copy_of_store: Path) -> None:
    store = add_versions(copy_of_store, 2, 3, 4, 5)
    store.pin("digits", 2)
    lines: list[str] = []
    prune(store, "digits", keep=2, reporter=reporter(lines))
    assert store.versions("digits") == [2, 4, 5]
    assert [line.split("/")[-1] for line in lines] == ["1", "3"]
    prune(store, "digits", keep=0, reporter=reporter(lines))
    assert store.versions("digits") == [2, 5]
    assert sorted(entry.name for entry in (copy_of_store / "digits").iterdir()) == ["2", "5", "pinned"]


def test_the_live_version_stays_when_all_newer_ones_are_held_back(copy_of_store: Path) -> None:
    store = add_versions(copy_of_store, 2, 3, 4)
    for version in (3, 4):
        (copy_of_store / "digits" / f"{version}.held").touch()
    prune(store, "digits", keep=1, reporter=reporter([]))
    assert sorted(entry.name for entry in (copy_of_store / "digits").iterdir()) == ["2", "4", "4.held"]


def test_nothing_is_removed_where_the_pin_cannot_be_read(copy_of_store: Path) -> None:
    store = add_versions(copy_of_store, 2, 3)
    (copy_of_store / "digits" / "pinned").write_text("the good one")
    lines: list[str] = []
    prune(store, "digits", keep=1, reporter=reporter(lines))
    assert store.versions("digits") == [1, 2, 3]
    assert "no old version was removed" in lines[0]


def test_fit_keeps_as_many_versions_as_it_is_told(copy_of_store: Path, few_digits: Path) -> None:
    add_versions(copy_of_store, 2, 3)
    options = ["--data", str(few_digits), "--name", "digits", "--epochs", "1", "--no-report"]
    done = CliRunner().invoke(
        cli, ["fit", "--preset", "seed", *options, "--keep", "2", "--model-store", str(copy_of_store)]
    )
    assert done.exit_code == 0, done.output
    assert ModelStore(copy_of_store).versions("digits") == [3, 4]
    assert "removed" in done.stderr
