"""What the documentation lists is what the code has."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.__main__ import cli
from app.api.errors import STATUS
from app.metrics import FAMILIES
from app.settings import Settings, allowed_range, env_name, is_secret
from tests.end_to_end.pages import NOT_RUN, Page
from tools.docs_site import navigation
from training.audit.checks import CHECKS
from training.model.presets import PRESETS
from training.options import FIT_OPTIONS


@pytest.fixture(scope="module")
def docs(repository: Path) -> dict[str, str]:
    pages = [*(repository / "docs").rglob("*.md"), repository / "README.md"]
    return {str(path.relative_to(repository)): path.read_text() for path in pages}


def settings_table() -> str:
    """The table of docs/reference/settings.md, from the settings' own declarations."""
    rows = ["| variable | default | allowed | what it is |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "none" if field.default is None else f"`{field.default}`"
        allowed = allowed_range(name).replace(" | ", ", ")
        rows.append(f"| `{env_name(name)}` | {default} | {allowed} | {field.description} |")
    return "\n".join(rows)


def test_the_settings_page_lists_every_setting_with_its_default_and_range(docs: dict[str, str]) -> None:
    assert settings_table() in docs["docs/reference/settings.md"]


def metrics_table() -> str:
    """The table of docs/reference/metrics.md, from the families' own declarations."""
    rows = ["| metric | labels | what it is |", "|---|---|---|"]
    suffix = {"counter": "_total", "gauge": "", "summary": "", "histogram": ""}
    for name, family in FAMILIES.items():
        labels = ", ".join(f"`{label}`" for label in family.labels)
        rows.append(f"| `{name}{suffix[family.kind]}` | {labels} | {family.kind}: {family.help} |")
    return "\n".join(rows)


def test_the_metrics_page_lists_every_metric(docs: dict[str, str]) -> None:
    assert metrics_table() in docs["docs/reference/metrics.md"]


def test_serve_help_lists_every_setting() -> None:
    shown = CliRunner().invoke(cli, ["serve", "--help"], env={"COLUMNS": "200"}).stdout
    for name in Settings.model_fields:
        assert is_secret(name) != (f"--{name.replace('_', '-')} " in shown), name


def test_the_api_page_lists_every_error_with_its_status(docs: dict[str, str]) -> None:
    rows = set(re.findall(r"^\| (\d{3}) \| `(\w+)` \|", docs["docs/reference/http-api.md"], re.MULTILINE))
    in_the_table = {(str(status), kind.code) for kind, status in STATUS.items()}
    of_the_framework = {("404", "not_found"), ("405", "method_not_allowed"), ("500", "internal_error")}
    assert rows == in_the_table | of_the_framework


def test_the_training_page_lists_every_preset(docs: dict[str, str]) -> None:
    listed = re.findall(r"^\| `(\w+)` \|.*\| [\d,]+ \|$", docs["docs/reference/training.md"], re.MULTILINE)
    assert listed == list(PRESETS)


def test_the_training_page_names_every_option_of_fit(docs: dict[str, str]) -> None:
    for option in FIT_OPTIONS.values():
        assert {option.word, option.word.replace("--", "--no-", 1)} & set(
            re.findall(r"--[a-z-]+", docs["docs/reference/training.md"])
        ), option.word


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = [re.sub(r"[^\w\- ]", "", line.lower()) for line in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    return {heading.strip().replace(" ", "-") for heading in headings}


def test_links_between_pages_lead_somewhere(repository: Path) -> None:
    for page in [
        *repository.glob("*.md"),
        *(repository / "docs").rglob("*.md"),
        repository / "benchmarks" / "README.md",
    ]:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text()):
            if not target.startswith(("http://", "https://")):
                linked = page.parent / target if target else page
                assert linked.exists(), f"{page.name} links to {target}"
                assert not anchor or anchor in anchors(linked), f"{page.name} links to {target}#{anchor}"


def test_pages_that_code_names_exist(repository: Path) -> None:
    for folder in ("app", "training", "benchmarks", "deploy", "tests"):
        for file in (repository / folder).rglob("*"):
            if file.suffix in {".py", ".j2", ".cfg", ".conf", ".yml", ".yaml", ".md"} and ".work" not in file.parts:
                for page in re.findall(r"(?<![\w/])docs/[\w/-]+\.md", file.read_text()):
                    assert (repository / page).exists(), f"{file} names {page}"


def test_the_index_lists_every_page(repository: Path) -> None:
    index = (repository / "docs" / "README.md").read_text()
    for page in (repository / "docs").glob("*/*.md"):
        assert f"]({page.relative_to(repository / 'docs')})" in index, page


def test_the_site_has_the_pages_of_the_index_and_no_others(repository: Path) -> None:
    assert navigation(repository / "docs")  # which raises NotListed


def test_a_how_to_guide_has_at_most_60_lines(repository: Path) -> None:
    for page in (repository / "docs" / "how-to").glob("*.md"):
        assert len(page.read_text().splitlines()) <= 60, page.name


def test_a_test_runs_every_command_of_tutorials_and_how_to_guides(repository: Path) -> None:
    sources = "\n".join(file.read_text() for file in (repository / "tests").rglob("test_*.py"))
    opened = set(re.findall(r'\bopened\("(docs/[\w/-]+\.md)"\)', sources))  # which fails if a command is left over
    for folder in ("tutorials", "how-to"):
        for path in (repository / "docs" / folder).glob("*.md"):
            name = str(path.relative_to(repository))
            page = Page(name)
            assert page.left == [] or name in opened, f"no test opens {name}, which shows {page.left}"
            for beginning in NOT_RUN.get(name, {}):
                assert any(text.startswith(beginning) for text in page.not_run), f"{name} has no {beginning!r} any more"
    assert all((repository / name).exists() for name in NOT_RUN)


def test_no_page_has_a_hole_left_to_fill(docs: dict[str, str]) -> None:
    for name, text in docs.items():
        assert not re.search(r"^[A-Z]{6,}$", text, re.MULTILINE), name


def test_every_make_target_that_a_page_names_exists(docs: dict[str, str], repository: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    for name, text in docs.items():
        code = "\n".join(re.findall(r"`[^`]*`|```.*?```", text, re.DOTALL))
        for target in re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)\b", code):
            assert target in targets, f"{name} names make {target}"


def test_every_test_that_a_promise_names_exists(docs: dict[str, str], repository: Path) -> None:
    sources = "\n".join(file.read_text() for file in (repository / "tests").rglob("test_*.py"))
    promised = re.findall(r"`(test_\w+)`", docs["docs/explanation/promises.md"])
    assert promised
    for name in promised:
        assert f"def {name}(" in sources, name


def test_the_audit_page_lists_every_check(docs: dict[str, str]) -> None:
    for check in CHECKS.values():
        threshold = "" if check.threshold is None else f"{check.threshold:g} {check.unit}"
        assert f"| `{check.name}` | {check.severity} | {threshold} | {check.what} |" in docs["docs/reference/audit.md"]
        assert f"**{check.name}**" in docs["docs/reference/audit.md"] or check.name == "near-leakage"
