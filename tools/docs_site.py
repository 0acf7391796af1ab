"""Build docs/ as a site: `make docs`.

docs/README.md is its first page, and its headings and lists are the navigation, so a page is in both or in neither. A
link that leaves docs/ is plain text there: the site holds no code.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

CONFIGURATION = """
[project]
site_name = "imageclass"
site_description = "From a folder of labelled pictures to a REST image classifier, in two commands."
docs_dir = "docs"
site_dir = "site"
use_directory_urls = false
nav = [
    {{ "Documentation" = "README.md" }},
{nav}]

[project.theme]
language = "en"
font = false
features = ["content.code.copy", "navigation.sections", "navigation.top", "search.highlight", "toc.follow"]

[[project.theme.palette]]
media = "(prefers-color-scheme: light)"
scheme = "default"

[[project.theme.palette]]
media = "(prefers-color-scheme: dark)"
scheme = "slate"

[project.markdown_extensions.toc]
permalink = true
slugify = {{ object = "pymdownx.slugs.slugify", kwds = {{ case = "lower" }} }}

[project.markdown_extensions.tables]
[project.markdown_extensions.pymdownx.superfences]
[project.markdown_extensions.pymdownx.highlight]
[project.markdown_extensions.sane_lists]
"""
_LINK = re.compile(r"\[((?:[^][]|\[[^][]*\])*)\]\(([^)#\s]+)(#[^)]*)?\)")


class NotListed(Exception):
    """Pages that docs/README.md lists and that are not there, or the other way round."""


def navigation(docs: Path) -> dict[str, dict[str, str]]:
    """Return the pages of each section by their titles, from docs/README.md. Raises NotListed."""
    sections: dict[str, dict[str, str]] = {}
    for line in (docs / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = sections.setdefault(line.removeprefix("## ").partition(":")[0], {})
        elif (found := re.fullmatch(r"- \[(.+)\]\((.+\.md)\)", line)) is not None:
            section[found[1].replace("`", "")] = found[2]
    listed = {page for pages in sections.values() for page in pages.values()}
    there = {str(page.relative_to(docs)) for page in docs.rglob("*.md")} - {"README.md"}
    if listed != there:
        raise NotListed(
            f"docs/README.md lacks {sorted(there - listed) or 'nothing'}, and lists "
            f"{sorted(listed - there) or 'nothing'} that is not there."
        )
    return sections


def stage(docs: Path, folder: Path) -> None:
    """Write the pages and the configuration of the site into a folder. Raises NotListed."""
    nav = navigation(docs)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(docs, folder / "docs")
    for page in (folder / "docs").rglob("*.md"):
        original = docs / page.relative_to(folder / "docs")
        page.write_text(_kept_within(docs, original), encoding="utf-8")
    lines = [
        f'    {{ "{section}" = [{", ".join(f"""{{ "{title}" = "{page}" }}""" for title, page in pages.items())}] }},\n'
        for section, pages in nav.items()
    ]
    (folder / "zensical.toml").write_text(CONFIGURATION.format(nav="".join(lines)), encoding="utf-8")


def _kept_within(docs: Path, page: Path) -> str:
    """Return the text of a page without its links to files outside docs/."""

    def kept(link: re.Match[str]) -> str:
        target = (page.parent / link[2]).resolve()
        leaves = "://" not in link[2] and not target.is_relative_to(docs.resolve())
        return link[1] if leaves else link[0]

    return _LINK.sub(kept, page.read_text(encoding="utf-8"))


def build(docs: Path, folder: Path) -> None:
    """Build the site of `docs` in `folder`/site. Ends the program with what is wrong if there is a dead link."""
    try:
        stage(docs, folder)
    except NotListed as exc:
        sys.exit(f"error: {exc}")
    zensical = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    done = subprocess.run(zensical, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)
        sys.exit(f"error: the site has dead links.\n{said.partition('Traceback')[0]}")


def main() -> None:
    repository = Path(__file__).parents[1]
    folder = repository / "build" / "docs"
    build(repository / "docs", folder)
    print(
        f"{(folder / 'site' / 'index.html').relative_to(repository)}: {len(list(folder.rglob('site/**/*.html')))} pages"
    )


if __name__ == "__main__":
    main()
