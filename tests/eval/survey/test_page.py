"""The page in Chromium by keyboard alone, and the server behind it."""

import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from openltx.cli import main
from openltx.errors import ServeError
from openltx.eval.survey.answers import Answers
from openltx.eval.survey.study import ANSWERS, Study

pytest.importorskip("fastapi")
Make = Callable[..., tuple[Path, Study]]
CHROMIUM = shutil.which("chromium")


@contextmanager
def serving(study: Study, folder: Path) -> Iterator[str]:
    import uvicorn

    from openltx.eval.survey.app import create_app

    server = uvicorn.Server(uvicorn.Config(create_app(study, folder), log_level="error"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.02)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def client(make_study: Make) -> Iterator[tuple[Any, Study, Path]]:
    from fastapi.testclient import TestClient

    from openltx.eval.survey.app import create_app

    folder, study = make_study()
    with TestClient(create_app(study, folder), base_url="http://127.0.0.1") as opened:
        yield opened, study, folder


ANSWER = {"quality": "left", "motion": "tie", "adherence": "right", "overall": "left", "seconds": 4.0}


def test_questions_are_asked_in_order_and_nothing_tells_the_models(client: tuple[Any, Study, Path]) -> None:
    http, study, folder = client
    code = study.raters[0]
    for number in range(study.total):
        asked = http.post("/api/question", json={"code": code}).json()
        assert (asked["done"], asked["total"], asked["question"]["number"]) == (number, study.total, number)
        assert set(asked["question"]) == {"number", "prompt", "left", "right"}
        assert not any(model in str(asked) for model in study.models)
        assert http.post("/api/answer", json={"code": code, "number": number, **ANSWER}).json()["done"] == number + 1
    assert http.post("/api/question", json={"code": code}).json()["question"] is None
    assert http.post("/api/question", json={"code": code, "number": 2}).json()["question"]["number"] == 2
    assert len(Answers(folder / ANSWERS).all()) == study.total


def test_clips_come_in_ranges_and_only_those_of_the_study(client: tuple[Any, Study, Path]) -> None:
    http, study, _ = client
    clip = next(iter(study.clips))
    part = http.get(f"/clips/{clip}.mp4", headers={"Range": "bytes=0-99"})
    assert (part.status_code, len(part.content)) == (206, 100)
    assert part.headers["content-type"] == "video/mp4"
    assert http.get("/clips/..%2Fstudy.json").status_code == 404
    assert http.get("/study.json").status_code == 404


def test_strangers_and_nonsense_are_refused(client: tuple[Any, Study, Path]) -> None:
    http, study, folder = client
    assert http.post("/api/question", json={"code": "guess"}).status_code == 403
    assert http.post("/api/answer", json={"code": "guess", "number": 0, **ANSWER}).status_code == 403
    code = study.raters[0]
    assert http.post("/api/answer", json={"code": code, "number": 999, **ANSWER}).status_code == 422
    assert http.post("/api/answer", json={"code": code, "number": 0, **ANSWER, "motion": "both"}).status_code == 422
    assert http.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert http.get("/").headers["X-Frame-Options"] == "DENY"
    assert Answers(folder / ANSWERS).all() == []


def test_a_taken_port_is_one_error(make_study: Make, capsys: pytest.CaptureFixture[str]) -> None:
    from openltx.eval.survey.app import serve

    folder, study = make_study()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match="another --port"):
            serve(study, folder, "127.0.0.1", port)
        assert main(["eval", "survey", "--out", str(folder), "--port", str(port)]) == 2
    assert "Cannot listen" in capsys.readouterr().err


def until_playing(page: Any) -> None:
    """Wait until both videos are decoded and run."""
    for _ in range(300):
        if page.evaluate("[...document.querySelectorAll('video')].every(v => v.readyState >= 2 && !v.paused)"):
            return
        time.sleep(0.1)
    raise AssertionError("the videos do not play")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_whole_survey_is_answered_by_keyboard_alone(make_study: Make) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    expect = sync_api.expect
    expect.set_options(timeout=30_000)
    folder, study = make_study(raters=1, comparisons=6)
    code, store = study.raters[0], Answers(folder / ANSWERS)
    with serving(study, folder) as url, sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.goto(url)
        keys = page.keyboard
        keys.type("wrong")
        keys.press("Enter")
        expect(page.locator("#message")).to_contain_text("not known")
        faults.clear()  # the browser reports the refused request itself
        for _ in "wrong":
            keys.press("Backspace")
        keys.type(code)
        keys.press("Enter")
        expect(page).to_have_title(re.compile("^1 of"))
        until_playing(page)
        assert study.questions(code)[0].prompt in page.inner_text("#prompt")

        keys.press("Enter")  # nothing is answered yet
        expect(page.locator("#message")).to_contain_text("still open")
        for key in ("ArrowLeft", "2", "3", "ArrowRight"):
            keys.press(key)
        keys.press("Backspace")  # the last one again
        keys.press("ArrowDown")
        keys.press("Enter")
        expect(page).to_have_title(re.compile("^2 of"))
        assert store.all()[0].choices == ("left", "tie", "right", "tie")

        keys.press("Backspace")  # back to the first question, and answer it anew
        expect(page).to_have_title(re.compile("^1 of"))
        for number in range(study.total):
            expect(page).to_have_title(re.compile(f"^{number + 1} of"))
            for key in ("1", "1", "ArrowRight", "3"):
                keys.press(key)
            keys.press("Space")
            keys.press("Enter")
        expect(page.locator("#end")).to_be_visible()
        assert faults == []
        browser.close()
    kept = store.all()
    assert [answer.question.number for answer in kept] == list(range(study.total))
    assert {answer.choices for answer in kept} == {("left", "left", "right", "right")}
    assert all(0 < answer.seconds < 60 for answer in kept)
