"""report.html as whoever opens it meets it."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from app.contract.bundle import open_bundle
from training.__main__ import cli

SECTIONS = {
    "advice",
    "data",
    "samples",
    "preprocessing",
    "curves",
    "scores",
    "classes",
    "confusion",
    "mistakes",
    "calibration",
    "robustness",
    "cost",
    "suspicions",
    "repeat",
}
VOID = {"meta", "br", "img", "line", "polyline", "polygon"}


class Page(HTMLParser):
    """What is in a page: ids, links, text by section, and what it would fetch. Fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == [], "every tag is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name in ("href", "xlink:href") and value]
        self.fetched += [value for name, value in attrs if name in ("src", "srcset", "action", "data") and value]
        if tag not in VOID:
            self._open.append(tag)
        assert not [name for name in found if name.startswith("on")], "no script in an attribute"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


@pytest.fixture(scope="module")
def bundle(few_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    words = f"fit --preset seed --data {few_digits} --name d --epochs 3 --validation 0.1 --model-store {store}"
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    return store / "d" / "1"


@pytest.fixture(scope="module")
def page(bundle: Path) -> str:
    return (bundle / "report.html").read_text(encoding="utf-8")


def test_every_section_is_there_and_every_link_leads_to_one(page: str) -> None:
    parsed = Page(page)
    assert set(parsed.ids) == SECTIONS
    assert len(parsed.ids) == len(SECTIONS)
    assert parsed.links == [f"#{name}" for name in parsed.ids]


def test_it_needs_nothing_else(page: str) -> None:
    parsed = Page(page)
    assert parsed.fetched
    assert all(source.startswith("data:image/") for source in parsed.fetched)
    assert "script" not in parsed.tags
    assert "link" not in parsed.tags
    assert not re.search(r"url\(|@import|https?:", page)
    assert "default-src 'none'" in page


def test_it_is_a_file_of_the_bundle_like_any_other(bundle: Path) -> None:
    assert "report.html" in open_bundle(bundle).manifest.files


def test_it_says_what_the_bundle_says(bundle: Path, page: str) -> None:
    metrics, manifest = open_bundle(bundle).metrics(), open_bundle(bundle).manifest
    assert f"{metrics['test']['accuracy']:.2%}" in page
    assert (
        f"{metrics['test']['macro_recall']:.2%}" in page[page.index('<h2 id="scores"') : page.index('<h2 id="classes"')]
    )
    assert f"{metrics['parameters']:,} parameters" in page
    assert str(manifest.training["command"]) in page
    wrong = round(metrics["test"]["pictures"] * (1 - metrics["test"]["accuracy"]))
    assert f"{wrong:,} of {metrics['test']['pictures']:,} test pictures are wrong" in page
    assert page.count("<svg") == 5, "loss, accuracy, learning rate, reliability, risk over coverage"


def test_what_a_stranger_named_is_escaped_on_every_page(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    (tmp_path / "data").mkdir()
    rows = ["path,label"]
    for index in range(60):
        label = ("<b onclick=alert(1)>", "dark & \"grey'")[index % 2]
        name = f"<img src=x>{index}.png"
        picture = random.integers(0, 100, (12, 12), np.uint8) + np.uint8(index % 2 * 100)
        (tmp_path / "data" / name).write_bytes(cv2.imencode(".png", picture)[1].tobytes())
        rows.append(f'{name},"{label.replace(chr(34), chr(34) * 2)}"')
    (tmp_path / "data" / "list.csv").write_text("\n".join(rows), encoding="utf-8")
    words = ["fit", "--preset", "seed", "--data", str(tmp_path / "data" / "list.csv"), "--name", "d", "--epochs", "1"]
    done = CliRunner().invoke(cli, [*words, "--model-store", str(tmp_path)])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "d" / "1" / "report.html").read_text(encoding="utf-8")
    assert Page(text).fetched
    assert "<b onclick" not in text
    assert "<img src=x" not in text
    assert "&lt;b onclick=alert(1)&gt;" in text
    assert str(tmp_path) not in text


def test_a_run_can_do_without(tmp_path: Path, few_digits: Path) -> None:
    words = f"fit --preset seed --data {few_digits} --name d --epochs 1 --no-report --model-store {tmp_path}"
    assert CliRunner().invoke(cli, words).exit_code == 0
    metrics = json.loads((tmp_path / "d" / "1" / "metrics.json").read_text())
    assert not (tmp_path / "d" / "1" / "report.html").exists()
    assert "diagnosis" in metrics
    assert "robustness" not in metrics


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no browser here")
def test_a_browser_shows_it_on_a_phone_without_scrolling_sideways(bundle: Path, tmp_path: Path) -> None:
    probe = tmp_path / "probe.html"
    report = (bundle / "report.html").as_uri()
    probe.write_text(
        f"<iframe id=f src='{report}' width=390 height=800></iframe><script>f.onload = () => {{"
        "document.title = 'loaded'; const shown = f.contentDocument.documentElement;"
        "document.body.dataset.wide = shown.scrollWidth; document.body.dataset.sections ="
        "f.contentDocument.querySelectorAll('section').length; document.body.dataset.broken ="
        "[...f.contentDocument.images].filter((image) => !image.naturalWidth).length}</script>"
    )
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    done = subprocess.run(
        [*command, "--virtual-time-budget=5000", "--dump-dom", probe.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert 'data-broken="0"' in done.stdout
    assert f'data-sections="{len(SECTIONS)}"' in done.stdout
    wide = re.search(r'data-wide="(\d+)"', done.stdout)
    assert wide
    assert int(wide[1]) <= 390
