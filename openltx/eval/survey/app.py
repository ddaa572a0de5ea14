"""The web server of a survey: one page, and what it asks for. It listens on this machine unless it is told otherwise.

A rater's code is all that lets one in. What a browser gets to see of a clip is an id; clips carry no metadata.
"""

import socket
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse, Response
from pydantic import BaseModel, Field
from starlette.middleware.base import RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware

from openltx.errors import ServeError
from openltx.eval.survey.answers import CRITERIA, Answer, Answers, Choice
from openltx.eval.survey.study import ANSWERS, Study, clip_path

_LOOPBACK = ("127.0.0.1", "localhost")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'self'",
}

Code = Annotated[str, Field(max_length=64)]


class Wanted(BaseModel):
    """A rater asks for a question: of a number, or the first that is open."""

    code: Code
    number: int | None = None


class Given(BaseModel):
    """A rater's answer."""

    code: Code
    number: int
    quality: Choice
    motion: Choice
    adherence: Choice
    overall: Choice
    seconds: Annotated[float, Field(ge=0, le=1e6)]


def create_app(study: Study, folder: Path, hosts: tuple[str, ...] = _LOOPBACK) -> FastAPI:
    """The application; ``hosts`` are the names under which it may be asked ("*": any)."""
    app = FastAPI(title="openltx survey", docs_url=None, redoc_url=None, openapi_url=None)
    answers = Answers(folder / ANSWERS)
    known = {*study.clips, *study.checks}
    page = files("openltx.eval.survey").joinpath("page.html").read_text(encoding="utf-8")

    @app.middleware("http")
    async def _with_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers.update(_HEADERS)
        return response

    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    @app.get("/", response_class=HTMLResponse)
    def _page() -> str:
        return page

    @app.post("/api/question")
    def _question(wanted: Wanted) -> dict[str, Any]:
        """A question, or none where all are answered; earlier ones can be asked for again."""
        questions, done = _questions(study, wanted.code), answers.answered(wanted.code)
        open_ones = [q.number for q in questions if q.number not in done]
        number = wanted.number if wanted.number in done else next(iter(open_ones), None)
        progress = {"done": len(done), "total": len(questions)}
        if number is None:
            return {**progress, "question": None}
        asked = questions[number]
        return {
            **progress,
            "question": {
                "number": asked.number,
                "prompt": asked.prompt,
                "left": f"/clips/{asked.left}.mp4",
                "right": f"/clips/{asked.right}.mp4",
            },
        }

    @app.post("/api/answer")
    def _answer(given: Given) -> dict[str, Any]:
        """Keep an answer; what is kept is on disk when this returns."""
        questions = _questions(study, given.code)
        if not 0 <= given.number < len(questions):
            raise HTTPException(422, f"There is no question {given.number}.")
        quality, motion, adherence, overall = (getattr(given, name) for name in CRITERIA)
        answers.keep(
            Answer(
                rater=given.code,
                question=questions[given.number],
                choices=(quality, motion, adherence, overall),
                seconds=given.seconds,
            )
        )
        return {"done": len(answers.answered(given.code)), "total": len(questions)}

    @app.get("/clips/{name}")
    def _clip(name: str) -> FileResponse:
        clip = name.removesuffix(".mp4")
        if clip not in known:
            raise HTTPException(404, "There is no such clip.")
        return FileResponse(clip_path(folder, clip), media_type="video/mp4")

    return app


def serve(study: Study, folder: Path, host: str, port: int) -> None:
    """Serve until Ctrl-C; raises ``ServeError`` if the port is taken. Port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ServeError(f"Cannot listen on {host}:{port}: {error}. Choose another --port or --host.") from error
        app = create_app(study, folder, _LOOPBACK if host in _LOOPBACK else ("*",))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False))
        server.run(sockets=[listener])


def _questions(study: Study, code: str) -> list[Any]:
    if code not in study.raters:
        raise HTTPException(403, "This code is not known. Check it, or ask whoever gave it to you.")
    return study.questions(code)
