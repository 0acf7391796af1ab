"""The commands of docs/tutorials/photos.md, in their order, on a few small pictures and without fine-tuning."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.contract.store import ModelStore
from tests.end_to_end.conftest import StartService
from tests.end_to_end.pages import Page, opened, run, settings_of
from tests.photos import photo, write_photos

_OF_EACH_CLASS = 20
_LESS_WORK = ["--size 96", "--effort quick", "--no-report"]


@pytest.fixture
def tutorial() -> Iterator[Page]:
    with opened("docs/tutorials/photos.md") as page:
        yield page


@pytest.fixture
def folder(tutorial: Page, repository: Path, tmp_path: Path) -> Path:
    """A folder with `my-photos`: among the pictures those that the page names, one of them in a wrong class."""
    wrong, right = re.findall(r"^mv my-photos/(\S+) my-photos/(\S+)/$", tutorial.text, re.MULTILINE)[0]
    (asked,) = re.findall(r"@my-photos/(\S+)", tutorial.text)
    labels = list(dict.fromkeys([asked.split("/")[0], wrong.split("/")[0], right]))
    shutil.copy(repository / "README.md", tmp_path)
    write_photos(tmp_path / "my-photos", labels, of_each=_OF_EACH_CLASS)
    (tmp_path / "my-photos" / asked).write_bytes(photo(labels.index(asked.split("/")[0]), 8))
    (tmp_path / "my-photos" / wrong).write_bytes(photo(labels.index(right), 9))
    return tmp_path


@pytest.mark.long
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
def test_the_tutorial_leads_from_a_folder_of_photos_to_a_corrected_model(
    tutorial: Page, repository: Path, folder: Path, start_service: StartService
) -> None:
    environment = {"PYTHONPATH": str(repository), "XDG_CACHE_HOME": str(folder / "cache")}
    store, service = ModelStore(folder / "model_store"), None
    for command in tutorial.commands():
        if command.startswith("make "):
            continue  # tests/test_docs.py holds it to the Makefile
        if command.endswith("make run"):
            service = start_service(store.root, **settings_of(command))
        elif command.startswith("curl "):
            assert service is not None
            answer = json.loads(run(command, folder, url=service.url))
            if "@my-photos" in command:
                assert answer["label"] == command.split("@my-photos/")[1].split("/")[0]
            else:
                assert answer["code"] == "unsupported_format"
        elif " fit " in command:
            run(" ".join([command, *(words for words in _LESS_WORK if words not in command)]), folder, **environment)
        else:
            if " promote " in command:  # so few pictures do not show it to be significantly worse
                (store.root / "clothes" / "3.held").write_text("worse\n")
            run(command, folder, **environment)
    assert store.versions("clothes") == [1, 2, 3]
    assert store.held_back("clothes") == set()
    assert (folder / "audit" / "audit.html").exists()
