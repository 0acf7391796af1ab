"""Serve a review on this machine: the page, its questions, their pictures by number, and the answers."""

import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import FastAPI, Request
from fastapi import Path as Part
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from app.errors import ImageclassError
from training.data.decisions import Decision
from training.errors import OptionError
from training.pages.images import large
from training.review.guard import Guard
from training.review.session import Session

_PAGE = Path(__file__).parent / "templates"
_FILES = {"/": "review.html", "/review.css": "review.css", "/review.js": "review.js"}
_LARGEST_SIDE = 1024  # pixels
_NUMBER = Part(ge=0)


class Given(BaseModel):
    """What the page sends as the answer to a question."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: Annotated[int, Field(ge=0)]
    picture: Annotated[int, Field(ge=0, le=1)] = 0
    action: Literal["relabel", "keep", "drop", "later"]
    label: str = ""


def serve_review(session: Session, *, port: int, data: str, after: str, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; `ready` is called with the address, which has the token in it.

    Raises OptionError for a port in use. `data` is the data's name in messages, `after` the command that comes next.
    """
    token = secrets.token_urlsafe(32)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as exc:
            raise OptionError(f"--port {port} cannot be used: {exc.strerror}. Give another, or 0 for any.") from exc
        listener.listen()
        port = listener.getsockname()[1]
        ready(f"http://127.0.0.1:{port}/?token={token}")
        app = review_app(session, port=port, token=token, data=data, after=after)
        config = uvicorn.Config(
            app, lifespan="off", ws="none", access_log=False, log_config=None, timeout_graceful_shutdown=1
        )
        uvicorn.Server(config).run(sockets=[listener])


def review_app(session: Session, *, port: int, token: str, data: str, after: str) -> Guard:
    """Return the ASGI application of a review at a port. Pictures are named by a question's number and their place."""
    app = FastAPI(
        openapi_url=None, telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False}
    )

    @app.exception_handler(ImageclassError)
    def fail(_request: Request, exc: ImageclassError) -> JSONResponse:
        return JSONResponse({"error": str(exc)}, 409)

    for path, name in _FILES.items():
        app.get(path)(_file(_PAGE / name))

    @app.get("/favicon.ico")
    def icon() -> Response:
        return Response(status_code=204)

    @app.get("/questions")
    def questions() -> JSONResponse:
        shown = [_shown(session, number) for number in range(len(session.questions))]
        return JSONResponse({"data": data, "after": after, "labels": list(session.labels), "questions": shown})

    @app.get("/pictures/{number}/{place}")
    def picture(number: Annotated[int, _NUMBER], place: Annotated[int, _NUMBER]) -> Response:
        if number >= len(session.questions) or place >= len(session.questions[number].pictures):
            return JSONResponse({"error": "There is no such picture."}, 404)
        kind, content = large(session.questions[number].pictures[place], _LARGEST_SIDE)
        return Response(content, media_type=f"image/{kind}")

    @app.post("/answers")
    def answer(given: Given) -> JSONResponse:
        session.decide(given.question, given.action, picture=given.picture, label=given.label)
        return JSONResponse({"question": given.question, "answer": _answer(session, given.question)})

    @app.post("/undo")
    def undo() -> JSONResponse:
        number = session.undo()
        return JSONResponse({"question": number, "answer": None if number is None else _answer(session, number)})

    return Guard(app, port=port, token=token)


def _file(file: Path) -> Callable[[], FileResponse]:
    return lambda: FileResponse(file)


def _shown(session: Session, number: int) -> dict[str, Any]:
    question = session.questions[number]
    return {
        "check": question.check,
        "reasons": question.reasons,
        "pictures": [
            {"id": picture.id, "label": picture.label, "split": picture.split} for picture in question.pictures
        ],
        "likely": question.likely,
        "can_keep": question.can_keep,
        "answer": _answer(session, number),
    }


def _answer(session: Session, number: int) -> dict[str, Any] | None:
    decision = session.answer(number)
    if decision is None:
        return None
    return {"action": decision.action, "label": decision.label, "picture": _place(session, number, decision)}


def _place(session: Session, number: int, decision: Decision) -> int:
    """Return the picture of a question that the decision is about: the first, unless the other one is named."""
    names = [picture.id for picture in session.questions[number].pictures]
    return names.index(decision.path) if decision.path in names else 0
