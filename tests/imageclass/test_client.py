"""The client as users of the installed package import it: its examples run, and it brings no engine along."""

import doctest
import subprocess
import sys
from types import ModuleType

import httpx
import pytest

import app.client.service
import imageclass.client
from imageclass.client import ServiceClient

SEVEN = {"label": "7", "probability": 0.75, "probabilities": {"7": 0.75, "1": 0.25}}
MODEL = {"name": "mnist", "version": 1}
UNUSABLE = {"error": "This is not a picture.", "code": "not_a_picture"}


def _answer(request: httpx.Request) -> httpx.Response:
    if request.url.path == "/models":
        return httpx.Response(200, json={"models": [{**MODEL, "labels": ["1", "7"], "metrics": {}}]})
    if request.url.path == "/predict":
        return httpx.Response(200, json={**SEVEN, "model": MODEL})
    return httpx.Response(200, json={"predictions": [SEVEN, UNUSABLE], "model": MODEL})


@pytest.mark.parametrize("module", [imageclass.client, app.client.service], ids=lambda module: module.__name__)
def test_the_examples_of_the_client_run(module: ModuleType) -> None:
    service = httpx.MockTransport(_answer)
    with ServiceClient("http://127.0.0.1:8000", transport=service) as client:
        given = {"service": service, "picture": b"seven", "client": client}
        found = [each for each in doctest.DocTestFinder().find(module, extraglobs=given) if each.examples]
        results = [doctest.DocTestRunner().run(each) for each in found]
    assert results
    assert all(result.failed == 0 < result.attempted for result in results)


def test_the_client_needs_httpx_and_orjson_alone() -> None:
    script = (
        "import sys\nimport imageclass.client\n"
        "print(*sorted({'cv2', 'fastapi', 'numpy', 'openvino', 'pydantic', 'typer'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
