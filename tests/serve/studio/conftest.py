"""Chromium before a running server. Errors in the page's console and requests to anybody else fail a test."""

import base64
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="the studio's tests need playwright: pip install -e '.[dev]'")

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

PATIENCE = 120_000  # milliseconds
SLOW = {"steps": 200, "size": "256x256", "frames": 33}
HARMLESS = "Failed to load resource"  # an answer of 400 and above, which the page puts into words

_HOLD = """([name, kind, base64]) => {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const held = new DataTransfer();
    held.items.add(new File([bytes], name, { type: kind }));
    return held;
}"""
_DROP = """(target, [held, across]) => {
    const box = target.getBoundingClientRect();
    const place = { clientX: box.left + across * box.width, clientY: box.top + box.height / 2 };
    for (const kind of ["dragenter", "dragover", "drop"]) {
        target.dispatchEvent(new DragEvent(kind, { dataTransfer: held, bubbles: true, cancelable: true, ...place }));
    }
}"""
_PASTE = """(held) => document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: held, bubbles: true }))"""
_WATCH = """async (video) => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    const seen = new Set();
    const began = performance.now();
    while (seen.size < 3 && performance.now() - began < 100000) {
        await new Promise((wake) => video.requestVideoFrameCallback(wake));
        pen.drawImage(video, 0, 0);
        seen.add(pen.getImageData(0, 0, canvas.width, canvas.height).data.join());
    }
    return seen.size;
}"""


@dataclass
class Studio:
    """A page with the studio in it, and its server."""

    page: Page
    server: Any
    sent: dict[str, Any] = field(default_factory=dict)
    """What the latest order asked for."""

    def open(self, fragment: str = "") -> "Studio":
        """Go to the page, and wait until it knows the model."""
        self.page.goto(f"{self.server.url}/{fragment}")
        expect(self.page.locator("#model")).not_to_be_empty()
        return self

    def fill(self, **fields: Any) -> None:
        """Fill in the form, by the names of a request's fields."""
        for name, value in fields.items():
            if name == "size":
                for side, pixels in zip(("width", "height"), value.split("x"), strict=True):
                    self.page.locator(f"#{side}").fill(pixels)
            else:
                self.page.locator(f"#{name}").fill(str(value))

    def generate(self) -> str:
        """Press the button; gives the job's identifier."""
        with self.page.expect_response(_is_order) as answer:
            self.page.get_by_role("button", name="Generate").click()
        assert answer.value.status == 200, answer.value.text()
        self.sent = answer.value.request.post_data_json
        return answer.value.json()["id"]

    @contextmanager
    def held(self, job: str) -> Iterator[None]:
        """Within the block the job stands still somewhere in its steps, however fast the machine is."""
        self.server.running(job)
        worker = self.server.worker_pid()
        os.kill(worker, signal.SIGSTOP)
        yield
        os.kill(worker, signal.SIGCONT)

    def video(self, index: int = 0) -> Locator:
        """The video on the stage, when it is there."""
        video = self.page.locator("#screen video").nth(index)
        expect(video).to_be_visible()
        self.page.wait_for_function("(video) => video.readyState >= 2", arg=video.element_handle())
        return video

    def frames_seen(self) -> int:
        """How many different pictures the playing video shows: 3, or fewer if it does not move in a long time."""
        return self.video().evaluate(_WATCH)

    def drop(self, file: Path, kind: str, target: str, across: float = 0.5) -> None:
        """Drop a file on the element of this selector, so far across it."""
        self.page.locator(target).evaluate(_DROP, [self._hold(file, kind), across])

    def paste(self, file: Path, kind: str) -> None:
        self.page.evaluate(_PASTE, self._hold(file, kind))

    def _hold(self, file: Path, kind: str) -> Any:
        return self.page.evaluate_handle(_HOLD, [file.name, kind, base64.b64encode(file.read_bytes()).decode()])


def _is_order(response: Any) -> bool:
    path = response.url.partition("/v1/videos")[2]
    return "/v1/videos" in response.url and response.request.method == "POST" and path in ("", "/extensions")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium here: make system")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Studio]]:
    """Open a page of its own: ``visit(server, **options of a browser context)``."""
    contexts, troubles = [], []

    def watched(server: Any, **options: Any) -> Studio:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "console", lambda said: said.type == "error" and HARMLESS not in said.text and troubles.append(said.text)
        )
        ours = (server.url, "blob:", "data:")
        page.on("request", lambda request: request.url.startswith(ours) or troubles.append(request.url))
        return Studio(page, server)

    yield watched
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.fixture
def studio(visit: Callable[..., Studio], server: Any) -> Iterator[Studio]:
    """The studio of the shared server, whose queue is left empty."""
    yield visit(server).open()
    for job in server.call("GET", "/v1/videos?limit=100").json()["data"]:
        if job["status"] in ("queued", "in_progress"):
            server.call("POST", f"/v1/videos/{job['id']}/cancel")


@pytest.fixture
def slow() -> dict[str, Any]:
    """Settings of a video that takes a while."""
    return dict(SLOW)
