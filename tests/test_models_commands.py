"""`python -m app models …`: what the store holds, and what is to be served."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.__main__ import cli
from app.contract.store import ModelStore


def models(*arguments: str, store: Path) -> Result:
    return CliRunner().invoke(cli, ["models", *arguments, "--model-store", str(store)])


def error_of(*arguments: str, store: Path) -> str:
    """Run a command that must fail, and return the one line that says why."""
    done = models(*arguments, store=store)
    assert done.exit_code == 1, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in done.output
    return line


def add_version(store: Path, version: int, *, damaged: bool = False) -> None:
    folder = store / "digits" / str(version)
    shutil.copytree(store / "digits" / "1", folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "version": version}))
    if damaged:
        (folder / "saved_model.pb").write_bytes(b"")


def test_pin_and_unpin_and_what_list_show_and_verify_say_of_it(copy_of_store: Path) -> None:
    add_version(copy_of_store, 2)
    assert models("pin", "digits", "1", store=copy_of_store).exit_code == 0
    assert ModelStore(copy_of_store).pinned("digits") == 1
    listed = models("list", store=copy_of_store).stdout.splitlines()
    assert "macro recall" in "".join(listed)
    assert [line.count("pinned") for line in listed if "│ digits" in line] == [1, 0]
    assert "Version 1 is pinned." in models("show", "digits", store=copy_of_store).stderr
    assert "It is pinned." in models("verify", "digits", "--version", "1", store=copy_of_store).stdout
    assert models("unpin", "digits", store=copy_of_store).exit_code == 0
    assert ModelStore(copy_of_store).pinned("digits") is None
    assert "No version is pinned." in models("verify", "digits", store=copy_of_store).stdout


def test_a_version_is_put_into_preview_listed_and_taken_out_again(copy_of_store: Path) -> None:
    add_version(copy_of_store, 2)
    done = models("preview", "digits", "1", store=copy_of_store)
    assert done.exit_code == 0
    assert "model=digits&version=1" in done.stdout
    listed = models("list", store=copy_of_store).stdout.splitlines()
    assert [line.count("preview") for line in listed if "│ digits" in line] == [1, 0]
    assert models("preview", "digits", "--end", store=copy_of_store).exit_code == 0
    assert ModelStore(copy_of_store).preview("digits") is None


def test_what_would_not_be_previewed_is_not_marked(copy_of_store: Path) -> None:
    add_version(copy_of_store, 2)
    add_version(copy_of_store, 3)
    add_version(copy_of_store, 1 << 40, damaged=True)
    models("pin", "digits", "3", store=copy_of_store)
    assert "the one that is served" in error_of("preview", "digits", "3", store=copy_of_store)
    assert "saved_model.pb" in error_of("preview", "digits", str(1 << 40), store=copy_of_store)
    assert "has no version 9" in error_of("preview", "digits", "9", store=copy_of_store)
    assert "either the version to preview, or --end" in error_of("preview", "digits", store=copy_of_store)
    assert "or --end" in error_of("preview", "digits", "2", "--end", store=copy_of_store)
    assert ModelStore(copy_of_store).preview("digits") is None


def test_rollback_goes_down_from_what_is_served_one_version_at_a_time(copy_of_store: Path) -> None:
    add_version(copy_of_store, 2)
    add_version(copy_of_store, 3)
    for expected in (2, 1):
        assert models("rollback", "digits", store=copy_of_store).exit_code == 0
        assert ModelStore(copy_of_store).pinned("digits") == expected
    assert "no version below version 1" in error_of("rollback", "digits", store=copy_of_store)
    assert ModelStore(copy_of_store).pinned("digits") == 1


def test_rollback_counts_from_the_newest_that_passes_and_passes_over_damaged_ones(copy_of_store: Path) -> None:
    add_version(copy_of_store, 2, damaged=True)
    add_version(copy_of_store, 3)
    add_version(copy_of_store, 4, damaged=True)
    assert models("rollback", "digits", store=copy_of_store).exit_code == 0
    assert ModelStore(copy_of_store).pinned("digits") == 1


def test_what_would_not_be_served_is_not_pinned(copy_of_store: Path) -> None:
    add_version(copy_of_store, 2, damaged=True)
    assert "saved_model.pb is not the file" in error_of("pin", "digits", "2", store=copy_of_store)
    assert "no version 9; it has: 1, 2" in error_of("pin", "digits", "9", store=copy_of_store)
    assert "no model 'cats'" in error_of("pin", "cats", "1", store=copy_of_store)
    assert ModelStore(copy_of_store).pinned("digits") is None


@pytest.mark.parametrize("command", [["unpin", "cats"], ["rollback", "cats"]])
def test_a_model_that_is_not_there_is_named(copy_of_store: Path, command: list[str]) -> None:
    assert "no model 'cats'" in error_of(*command, store=copy_of_store)


def test_a_store_that_cannot_be_written_is_one_sentence(copy_of_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_version(copy_of_store, 2)
    ModelStore(copy_of_store).pin("digits", 2)

    def read_only(*_given: object, **_more: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.mkstemp", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    for command in (["pin", "digits", "1"], ["unpin", "digits"], ["rollback", "digits"]):
        message = error_of(*command, store=copy_of_store)
        assert f"{copy_of_store / 'digits'} cannot be written: Read-only file system." in message
    assert ModelStore(copy_of_store).pinned("digits") == 2


def test_a_pin_that_names_no_version_does_not_keep_the_list_from_being_shown(copy_of_store: Path) -> None:
    (copy_of_store / "digits" / "pinned").write_text("newest")
    done = models("list", store=copy_of_store)
    assert done.exit_code == 0
    assert "models pin digits VERSION" in done.stderr
    assert "│ digits" in done.stdout


def hold_back(store: Path, version: int) -> None:
    (store / "digits" / f"{version}.held").write_text("worse\n")


def test_a_version_that_is_held_back_is_listed_as_such_until_it_is_promoted(copy_of_store: Path) -> None:
    add_version(copy_of_store, 2)
    hold_back(copy_of_store, 2)
    listed = models("list", store=copy_of_store).stdout.splitlines()
    assert [line.count("held back") for line in listed if "│ digits" in line] == [0, 1]
    assert "It is held back." in models("show", "digits", store=copy_of_store).stderr
    done = models("promote", "digits", "2", store=copy_of_store)
    assert done.exit_code == 0
    assert "2 is no longer held back. A running service follows" in done.stdout
    assert "held back" not in models("list", store=copy_of_store).stdout
    assert "Version 2 of digits is not held back." in error_of("promote", "digits", "2", store=copy_of_store)


def test_promoting_leaves_a_pin_and_says_what_stays_served(copy_of_store: Path) -> None:
    add_version(copy_of_store, 2)
    add_version(copy_of_store, 3)
    hold_back(copy_of_store, 2)
    assert "Version 3 is newer, and stays served." in models("promote", "digits", "2", store=copy_of_store).stdout
    hold_back(copy_of_store, 3)
    models("pin", "digits", "1", store=copy_of_store)
    told = models("promote", "digits", "3", store=copy_of_store).stdout
    assert "Version 1 is pinned, and stays served." in told
    assert f"-m app models unpin digits --model-store {copy_of_store}" in told
    assert ModelStore(copy_of_store).pinned("digits") == 1


@pytest.mark.parametrize("command", ["promote", "remove"])
def test_what_is_not_there_is_neither_promoted_nor_removed(copy_of_store: Path, command: str) -> None:
    assert "no version 9; it has: 1" in error_of(command, "digits", "9", store=copy_of_store)
    assert "no model 'cats'" in error_of(command, "cats", "1", store=copy_of_store)


def test_a_version_is_removed_unless_it_is_live(copy_of_store: Path) -> None:
    add_version(copy_of_store, 2)
    add_version(copy_of_store, 3)
    hold_back(copy_of_store, 3)
    assert "Version 2 of digits is live" in error_of("remove", "digits", "2", store=copy_of_store)
    for version in ("3", "1"):
        assert models("remove", "digits", version, store=copy_of_store).exit_code == 0
    assert [entry.name for entry in (copy_of_store / "digits").iterdir()] == ["2"]
    assert "Version 2 of digits is live" in error_of("remove", "digits", "2", store=copy_of_store)


def test_a_store_that_cannot_be_written_promotes_and_removes_nothing(
    copy_of_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_version(copy_of_store, 2)
    hold_back(copy_of_store, 2)

    def read_only(*_given: object, **_more: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("tempfile.mkdtemp", read_only)
    monkeypatch.setattr(Path, "unlink", read_only)
    for command in ("promote", "remove"):
        message = error_of(command, "digits", "2", store=copy_of_store)
        assert f"{copy_of_store / 'digits'} cannot be written: Read-only file system." in message
    monkeypatch.undo()
    assert ModelStore(copy_of_store).held_back("digits") == {2}


def test_rollback_and_unpin_pass_over_what_is_held_back(copy_of_store: Path) -> None:
    for version in (2, 3, 4):
        add_version(copy_of_store, version)
    hold_back(copy_of_store, 2)
    hold_back(copy_of_store, 4)
    assert models("rollback", "digits", store=copy_of_store).exit_code == 0
    assert ModelStore(copy_of_store).pinned("digits") == 1
    assert "which is 3 if it does" in models("unpin", "digits", store=copy_of_store).stdout
    hold_back(copy_of_store, 1)
    hold_back(copy_of_store, 3)
    told = models("unpin", "digits", store=copy_of_store).stdout
    assert "every version is held back" in told
    assert "models promote digits VERSION" in told
