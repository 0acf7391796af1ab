"""No name that a stranger chose becomes markup, on any page."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from app.contract.bundle import CLASS_MAPS
from app.contract.preprocessing import Image
from app.engines.engine import Engine
from training.__main__ import cli
from training.audit.page import audit_page
from training.audit.report import Audit
from training.report import report
from training.report.answers import class_maps_of_mistakes
from training.report.material import Material
from training.report.page import report_page

HOSTILE = {
    "class-a": "<script>alert(1)</script>",
    "class-b": "\"&' onload=alert(2) </td></table>",
    "file-": "</figcaption><script>alert(3)</script>\"&'-",
    "model-m": "<script>alert(4)</script>\"&'",
    "data-d": "</title></style><script>alert(5)</script>\"&' {{ 7 * 7 }}",
}
"""By the harmless name that each stands for."""


class Markup(HTMLParser):
    """The elements of a page, in order, with all of their attributes; and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Material, Audit]:
    """Return what a fit and an audit of the same data show, under harmless names."""
    data = _write_data(tmp_path_factory.mktemp("data"))
    out = tmp_path_factory.mktemp("out")
    material: list[Material] = []
    audit: list[Audit] = []

    def keep_material(each: Material) -> str:
        material.append(each)
        return ""

    def keep_audit(each: Audit, *, review: str | None) -> str:
        assert review is not None
        audit.append(each)
        return ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "report_page", keep_material)
        patch.setattr("training.commands.audit.audit_page", keep_audit)
        fit = "fit --preset seed --name model-m --epochs 2 --validation 0.2 --on-bad-image skip"
        for words in (
            f"{fit} --data {data} --model-store {out}",
            f"audit --data {data} --out {out / 'audit'} --no-cache",
        ):
            done = CliRunner().invoke(cli, words)
            assert done.exit_code == 0, done.output
    return material[0], audit[0]


def _write_data(folder: Path) -> Path:
    """Write two classes with copies under both labels, and a file that is no picture, listed in data-d.csv."""
    random = np.random.default_rng(0)
    rows = ["path,label"]
    for index in range(60):
        picture = random.integers(0, 100, (12, 12), np.uint8) + np.uint8(index % 2 * 100)
        content = cv2.imencode(".png", picture)[1].tobytes()
        for copy in ("", "-copy") if index < 4 else ("",):
            name = f"file-{index}{copy}.png"
            (folder / name).write_bytes(content)
            rows.append(f"{name},class-{'ab'[(index + bool(copy)) % 2]}")
    (folder / "file-broken.png").write_bytes(b"")
    rows.append("file-broken.png,class-a")
    (folder / "data-d.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder / "data-d.csv"


def renamed(value: Any) -> Any:
    """Return a value with hostile names in place of harmless ones, in every text that it holds."""
    if isinstance(value, str):
        for harmless, hostile in HOSTILE.items():
            value = value.replace(harmless, hostile)
        return value
    if isinstance(value, Mapping):
        return {renamed(key): renamed(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(renamed(each) for each in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: renamed(getattr(value, field.name)) for field in fields(value)})
    return value


def test_a_hostile_name_is_text_in_a_report(shown: tuple[Material, Audit]) -> None:
    material, _ = shown
    page = Markup(report_page(renamed(material)))
    assert page.elements == Markup(report_page(material)).elements
    assert "script" not in {tag for tag, _ in page.elements}
    for hostile in HOSTILE.values():
        assert hostile in page.text


def test_a_hostile_name_is_text_in_an_audit(shown: tuple[Material, Audit]) -> None:
    _, audit = shown
    page = Markup(audit_page(renamed(audit), review=renamed("review data-d")))
    assert page.elements == Markup(audit_page(audit, review="review data-d")).elements
    assert "script" not in {tag for tag, _ in page.elements}
    for harmless in ("class-a", "class-b", "file-", "data-d"):
        assert HOSTILE[harmless] in page.text


def test_heat_maps_of_mistakes_say_of_which_label_they_are_however_hostile(shown: tuple[Material, Audit]) -> None:
    material, _ = shown
    held, maps = material.shown, np.random.default_rng(0).random((3, 3, 2), np.float32)
    wrong = np.flatnonzero(held.probabilities.argmax(axis=1) != held.tensors.targets)
    explained = replace(material, class_maps={int(row): maps for row in wrong})
    assert len(wrong)
    for harmless, page in ((True, report_page(explained)), (False, report_page(renamed(explained)))):
        texts = [
            value for tag, attrs in Markup(page).elements if tag == "img" for name, value in attrs if name == "alt"
        ]
        labels = ("class-a", "class-b") if harmless else (HOSTILE["class-a"], HOSTILE["class-b"])
        of_maps = [text for text in texts if text]
        assert len(of_maps) == 2 * len(wrong)
        assert set(of_maps) == {f"Heat map of what speaks for {label}" for label in labels}


def test_the_class_maps_of_mistakes_are_those_of_the_engine_that_has_them(shown: tuple[Material, Audit]) -> None:
    material, _ = shown

    class Known:
        name = "openvino"

        def outputs(self, batch: Image) -> dict[str, NDArray[np.float32]]:
            return {CLASS_MAPS: np.full((len(batch), 2, 2, 2), batch.mean(), np.float32)}

    found = class_maps_of_mistakes(material, cast(Engine, Known()))
    assert found
    for row, maps in found.items():
        assert maps.mean() == pytest.approx(material.shown.tensors.images[row].mean())
    assert class_maps_of_mistakes(material, cast(Engine, object())) == {}
