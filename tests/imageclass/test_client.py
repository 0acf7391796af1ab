"""The client as users of the installed package import it: its examples run, and it brings no engine along."""

import doctest
import subprocess
import sys

import httpx

import imageclass.client

SEVEN = {"label": "7", "probability": 0.75, "probabilities": {"7": 0.75, "1": 0.25}}
MODEL = {"name": "mnist", "version": 1}
UNUSABLE = {"error": "This is not a picture.", "code": "not_a_picture"}


def _answer(request: httpx.Request) -> httpx.Response:
    if request.url.path == "/predict":
        return httpx.Response(200, json={**SEVEN, "model": MODEL})
    return httpx.Response(200, json={"predictions": [SEVEN, UNUSABLE], "model": MODEL})


def test_the_examples_of_the_client_run() -> None:
    given = {"service": httpx.MockTransport(_answer), "picture": b"seven"}
    (examples,) = doctest.DocTestFinder().find(imageclass.client, "imageclass.client", extraglobs=given)
    assert doctest.DocTestRunner().run(examples) == doctest.TestResults(failed=0, attempted=5)


def test_the_client_needs_httpx_and_orjson_alone() -> None:
    script = (
        "import sys\nimport imageclass.client\n"
        "print(*sorted({'cv2', 'fastapi', 'numpy', 'openvino', 'pydantic', 'typer'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
