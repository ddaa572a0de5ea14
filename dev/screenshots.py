"""The pictures of docs/studio.md: serves the bundled model, makes some videos, and photographs the studio.

python dev/screenshots.py           needs chromium and the packages of `pip install -e '.[dev]'`
"""

import json
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

OUTPUT = Path(__file__).parents[1] / "docs" / "images" / "studio"
PROMPTS = [
    "a yellow cone topples over on green grass under a blue sky",
    "a green ball swings above a grey concrete floor in front of a grey wall",
    "a purple ball rolls to the left on a white marble floor at sunset",
    "an orange cube slides to the right on a wooden floor in front of a beige wall",
    "a cyan ball bounces on a blue carpet in front of a beige wall",
    "a red ball bounces on a checkered floor",
]
PATIENCE = 300_000  # milliseconds
START = Path(str(files("openltx") / "bundled" / "playroom" / "start.png"))


def main() -> None:
    """Write all pictures."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    with served() as url, sync_playwright() as playwright:
        videos = [made(url, prompt=prompt, seed=7 + index) for index, prompt in enumerate(PROMPTS)]
        videos.append(made(url, prompt=PROMPTS[-1], seed=21))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        desk = opened(browser, f"{url}/#{videos[-2]}", width=1440, height=1000)
        desk.locator("#prompt").fill("a red ball rolls to the left on a white marble floor")
        desk.locator("#choose").set_input_files(START)
        desk.locator("#pins li", has_not_text="uploading").wait_for()
        photograph(desk, "desktop")
        compare(desk, videos[-1])
        photograph(desk, "compare")
        photograph(forming(opened(browser, url, width=1440, height=1000, color_scheme="dark")), "dark")
        phone = {"width": 390, "height": 844, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}
        hand = opened(browser, f"{url}/#{videos[-2]}", **phone)
        hand.locator("#prompt").fill(PROMPTS[1])
        photograph(hand, "phone")
        browser.close()


@contextmanager
def served() -> Iterator[str]:
    """The address of a server of the bundled model, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "openltx", "serve", "--port", "0", "--data", folder]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        url = ""
        for line in process.stderr:
            event = json.loads(line) if line.startswith("{") else {}
            url = event.get("url", url)
            if event.get("event") == "worker.ready":
                break
        try:
            yield url
        finally:
            process.kill()
            process.wait()


def made(url: str, **request: Any) -> str:
    """A finished video's identifier."""
    body = json.dumps(request).encode()
    order = urllib.request.Request(f"{url}/v1/videos", body, {"Content-Type": "application/json"})
    video = json.load(urllib.request.urlopen(order))["id"]
    with urllib.request.urlopen(f"{url}/v1/videos/{video}/events") as events:
        events.read()
    return video


def opened(browser: Browser, address: str, *, width: int, height: int, **options: Any) -> Page:
    """A page with the studio, ready."""
    page = browser.new_context(viewport={"width": width, "height": height}, **options).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.locator("#model:not(:empty)").wait_for()
    page.locator("#cost .figure").first.wait_for()
    page.wait_for_function("() => document.querySelector('#screen video, .card')")
    page.wait_for_timeout(3000)  # for the thumbnails that are in sight
    return page


def compare(page: Page, video: str) -> None:
    """Put a second video beside the first."""
    card = page.locator(f'.card[data-id="{video}"]')
    card.hover()
    card.locator(".beside").click()
    page.locator("#screen video").nth(1).wait_for()


def forming(page: Page) -> Page:
    """A video that is half made, and one that waits."""
    page.locator("#steps").fill("60")
    for prompt in (PROMPTS[-1], PROMPTS[1]):
        page.locator("#prompt").fill(prompt)
        page.locator("#generate").click()
        page.locator("#jobs li", has_text=prompt).wait_for()
    page.locator("#jobs li").first.locator(".job").click()
    page.wait_for_function("() => document.querySelector('#screen progress')?.value > 45")
    return page


def photograph(page: Page, name: str) -> None:
    """Write one picture, without messages that pass."""
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(700)
    page.evaluate("document.getElementById('news').replaceChildren()")
    page.screenshot(path=OUTPUT / f"{name}.jpg", type="jpeg", quality=88)


if __name__ == "__main__":
    main()
