"""What `make release` checks before it builds, and what the wheel holds."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tools.release import NotReleasable, build, check, check_wheel, version_of

CHANGELOG = "# Changelog\n\nWhat a user notices.\n\n## Unreleased\n\n## 1.2.0 (2026-11-27)\n\n- Something.\n"


def git(folder: Path, *words: str) -> None:
    command = ["git", "-c", "user.name=tests", "-c", "user.email=tests@example.com", *words]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@pytest.fixture
def tagged(tmp_path: Path) -> Path:
    """A repository whose HEAD is the release 1.2.0."""
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    git(tmp_path, "tag", "v1.2.0")
    return tmp_path


def commit(repository: Path) -> None:
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "A change")


def test_a_release_is_a_commit_whose_tag_changelog_and_version_agree(tagged: Path) -> None:
    assert check(tagged) == "1.2.0"


def test_a_release_has_no_changes_that_are_not_committed(tagged: Path) -> None:
    (tagged / "new.py").touch()
    with pytest.raises(NotReleasable, match=r"not committed:\n\?\? new.py"):
        check(tagged)


def test_a_commit_without_the_tag_of_its_version_is_no_release(tagged: Path) -> None:
    commit(tagged)
    with pytest.raises(NotReleasable, match=r"says 1.2.0, so HEAD needs the tag v1.2.0; it has none\."):
        check(tagged)
    git(tagged, "tag", "v1.3.0")
    with pytest.raises(NotReleasable, match=r"needs the tag v1.2.0; it has v1.3.0\."):
        check(tagged)


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("## Unreleased\n\n", "", '"## Unreleased" as its first heading'),
        ("## Unreleased\n", "## Unreleased\n\n- A line.\n", 'lines under "Unreleased". Move them to 1.2.0.'),
        ("1.2.0 (2026-11-27)", "1.1.0 (2026-11-27)", 'is "1.1.0 (2026-11-27)"; it must be "1.2.0 (YYYY-MM-DD)".'),
        ("1.2.0 (2026-11-27)", "1.2.0", 'is "1.2.0"; it must be "1.2.0 (YYYY-MM-DD)".'),
    ],
)
def test_the_changelog_has_the_release_with_its_date(tagged: Path, old: str, new: str, error: str) -> None:
    (tagged / "CHANGELOG.md").write_text(CHANGELOG.replace(old, new))
    commit(tagged)
    git(tagged, "tag", "--force", "v1.2.0")
    with pytest.raises(NotReleasable, match=re.escape(error)):
        check(tagged)


def test_the_wheel_holds_the_packages_whole_and_nothing_else(repository: Path, tmp_path: Path) -> None:
    sdist, wheel = build(repository, tmp_path / "dist")
    metadata = check_wheel(repository, wheel)
    version = version_of(repository)
    assert (sdist.name, wheel.name) == (f"imageclass-{version}.tar.gz", f"imageclass-{version}-py3-none-any.whl")
    assert metadata["Requires-Python"] == "<3.14,>=3.11"
    assert metadata.get_all("License-File") == ["LICENSE", "NOTICE"]
    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert metadata.get_all("Provides-Extra") == sorted(extras)
    assert any(each.startswith("httpx") for each in metadata.get_all("Requires-Dist") or [])
    (tmp_path / "installed").mkdir()
    subprocess.run([sys.executable, "-m", "zipfile", "-e", wheel, tmp_path / "installed"], check=True)
    (about,) = (tmp_path / "installed").glob("*.dist-info")
    assert (about / "entry_points.txt").read_text() == "[console_scripts]\nimageclass = imageclass.__main__:main\n"
    for package in ("app", "imageclass", "training"):
        assert (tmp_path / "installed" / package / "py.typed").exists()


def test_what_names_the_version_names_this_one(repository: Path) -> None:
    version = version_of(repository)
    for file in [
        *(repository / "docs").rglob("*.md"),
        *(repository / "deploy").rglob("*.yaml"),
        repository / "README.md",
    ]:
        for named in re.findall(r"imageclass[:-](\d+\.\d+\.\d+)", file.read_text(encoding="utf-8")):
            assert named == version, file


@pytest.mark.long
def test_make_release_in_a_clone_builds_a_wheel_that_serves(repository: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(repository), str(clone))
    pyproject, changelog = clone / "pyproject.toml", clone / "CHANGELOG.md"
    pyproject.write_text(pyproject.read_text().replace(f'version = "{version_of(clone)}"', 'version = "99.0.0"'))
    changelog.write_text(
        changelog.read_text().replace("## Unreleased\n", "## Unreleased\n\n## 99.0.0 (2026-11-27)\n", 1)
    )
    commit(clone)
    git(clone, "tag", "v99.0.0")
    done = subprocess.run(["make", "release"], cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "POST /predict of tests/data/7-00000.png: 7 0.99" in done.stdout
    assert (clone / "dist" / "imageclass-99.0.0-py3-none-any.whl").exists()
