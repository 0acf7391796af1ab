"""What the documentation lists is what the code has."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.__main__ import cli
from app.api.errors import STATUS
from app.metrics import FAMILIES
from app.settings import Settings, allowed_range, env_name, is_secret
from training.audit.checks import CHECKS
from training.model.presets import PRESETS
from training.options import FIT_OPTIONS


@pytest.fixture(scope="module")
def docs(repository: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in [*(repository / "docs").rglob("*.md"), repository / "README.md"]}


def settings_table() -> str:
    """The table of docs/operating.md, from the settings' own declarations."""
    rows = ["| variable | default | allowed | what it is |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "none" if field.default is None else f"`{field.default}`"
        allowed = allowed_range(name).replace(" | ", ", ")
        rows.append(f"| `{env_name(name)}` | {default} | {allowed} | {field.description} |")
    return "\n".join(rows)


def test_the_operating_page_lists_every_setting_with_its_default_and_range(docs: dict[str, str]) -> None:
    assert settings_table() in docs["operating.md"]


def metrics_table() -> str:
    """The table of docs/operating.md, from the families' own declarations."""
    rows = ["| metric | labels | what it is |", "|---|---|---|"]
    suffix = {"counter": "_total", "gauge": "", "summary": "", "histogram": ""}
    for name, family in FAMILIES.items():
        labels = ", ".join(f"`{label}`" for label in family.labels)
        rows.append(f"| `{name}{suffix[family.kind]}` | {labels} | {family.kind}: {family.help} |")
    return "\n".join(rows)


def test_the_operating_page_lists_every_metric(docs: dict[str, str]) -> None:
    assert metrics_table() in docs["operating.md"]


def test_serve_help_lists_every_setting() -> None:
    shown = CliRunner().invoke(cli, ["serve", "--help"], env={"COLUMNS": "200"}).stdout
    for name in Settings.model_fields:
        assert is_secret(name) != (f"--{name.replace('_', '-')} " in shown), name


def test_the_api_page_lists_every_error_with_its_status(docs: dict[str, str]) -> None:
    rows = set(re.findall(r"^\| (\d{3}) \| `(\w+)` \|", docs["http-api.md"], re.MULTILINE))
    in_the_table = {(str(status), kind.code) for kind, status in STATUS.items()}
    of_the_framework = {("404", "not_found"), ("405", "method_not_allowed"), ("500", "internal_error")}
    assert rows == in_the_table | of_the_framework


def test_the_training_page_lists_every_preset(docs: dict[str, str]) -> None:
    listed = re.findall(r"^\| `(\w+)` \|.*\| [\d,]+ \|$", docs["training.md"], re.MULTILINE)
    assert listed == list(PRESETS)


def test_the_training_page_names_every_option_of_fit(docs: dict[str, str]) -> None:
    for option in FIT_OPTIONS.values():
        assert {option.word, option.word.replace("--", "--no-", 1)} & set(
            re.findall(r"--[a-z-]+", docs["training.md"])
        ), option.word


def test_links_between_pages_lead_somewhere(repository: Path) -> None:
    for page in [*repository.glob("*.md"), *(repository / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


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
    promised = re.findall(r"`(test_\w+)`", docs["operating.md"])
    assert promised
    for name in promised:
        assert f"def {name}(" in sources, name


def test_the_training_page_lists_every_check_of_the_audit(docs: dict[str, str]) -> None:
    for check in CHECKS.values():
        threshold = "" if check.threshold is None else f"{check.threshold:g} {check.unit}"
        assert f"| `{check.name}` | {check.severity} | {threshold} | {check.what} |" in docs["training.md"]
        assert f"**{check.name}**" in docs["training.md"] or check.name == "near-leakage"
