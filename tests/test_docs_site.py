"""The site of docs/: strictly built, with every page, and nothing from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.docs_site import NotListed, navigation, stage


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """Two pages and their index."""
    (tmp_path / "docs" / "how-to").mkdir(parents=True)
    (tmp_path / "docs" / "README.md").write_text(
        "# Docs\n\n## How-to guides: a task each\n\n- [Do `it`](how-to/it.md)\n"
    )
    (tmp_path / "docs" / "how-to" / "it.md").write_text("# Do it\n\n[index](../README.md) [code](../../app/x.py)\n")
    (tmp_path / "app").mkdir()
    return tmp_path / "docs"


def build(docs: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    script = (
        f"import sys; from pathlib import Path; from tools.docs_site import build\n"
        f"sys.exit(build(Path({str(docs)!r}), Path({str(folder)!r})))"
    )
    return subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )


def test_the_site_of_the_docs_has_no_dead_link_and_loads_nothing_from_elsewhere(
    repository: Path, tmp_path: Path
) -> None:
    done = build(repository / "docs", tmp_path / "site")
    assert done.returncode == 0, done.stderr
    built = {str(page.relative_to(tmp_path / "site" / "site")) for page in (tmp_path / "site" / "site").rglob("*.html")}
    pages = {page for section in navigation(repository / "docs").values() for page in section.values()}
    assert built == {"index.html", "404.html", *(page.removesuffix(".md") + ".html" for page in pages)}
    for page in built:
        html = (tmp_path / "site" / "site" / page).read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|iframe)[^>]*\bsrc=\"?([^\" >]+)", html)
        loaded += re.findall(r"<link[^>]*\brel=\"?(?:stylesheet|preload|preconnect)\"?[^>]*\bhref=\"?([^\" >]+)", html)
        assert not [address for address in loaded if "//" in address], page


def test_the_navigation_follows_the_index(docs: Path) -> None:
    assert navigation(docs) == {"How-to guides": {"Do it": "how-to/it.md"}}


def test_a_page_that_the_index_does_not_list_is_named(docs: Path) -> None:
    (docs / "how-to" / "more.md").touch()
    with pytest.raises(NotListed, match=r"lacks \['how-to/more.md'\], and lists nothing that is not there"):
        navigation(docs)


def test_a_link_that_leaves_the_docs_is_plain_text(docs: Path, tmp_path: Path) -> None:
    stage(docs, tmp_path / "staged")
    assert (tmp_path / "staged" / "docs" / "how-to" / "it.md").read_text() == "# Do it\n\n[index](../README.md) code\n"


@pytest.mark.parametrize("link", ["[gone](gone.md)", "[gone](../README.md#gone)"])
def test_a_dead_link_fails_the_site(docs: Path, tmp_path: Path, link: str) -> None:
    (docs / "how-to" / "it.md").write_text(f"# Do it\n\n{link}\n")
    done = build(docs, tmp_path / "site")
    assert done.returncode == 1
    assert "error: the site has dead links." in done.stderr
    assert "how-to/it.md:3" in done.stderr
