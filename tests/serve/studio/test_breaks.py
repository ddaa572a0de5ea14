"""The page is reloaded, the server killed, a key wanted: the visitor loses nothing, and is told what happens."""

import signal
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from openltx.cli import main

LONG = {"steps": 60, "size": "256x256", "frames": 17}


def test_a_reload_in_mid_job_loses_nothing(studio: Any, server: Any) -> None:
    page = studio.page
    studio.fill(prompt="reloaded on the way", **LONG)
    job = studio.generate()
    with studio.held(job):
        expect(page.locator("#screen .state")).to_contain_text("Step")
        page.reload()
        expect(page.locator("#screen .state")).to_contain_text("Step")
        expect(page.locator("#prompt")).to_have_value("reloaded on the way")
        assert server.get(job)["status"] == "in_progress"
    assert studio.frames_seen() == 3
    assert server.get(job)["attempt"] == 1


def test_a_server_that_is_killed_and_started_again_goes_on_with_the_job(visit: Any, start: Any, tmp_path: Path) -> None:
    server = start(tmp_path)
    studio = visit(server).open()
    page = studio.page
    studio.fill(prompt="it outlives the server", **LONG)
    job = studio.generate()
    server.running(job)
    server.stop(signal.SIGKILL)
    expect(page.locator("#banner")).to_contain_text("The server does not answer")
    again = start(tmp_path, port=server.port)
    expect(page.locator("#banner")).to_be_hidden()
    assert studio.frames_seen() == 3
    assert again.get(job)["attempt"] == 2
    assert page.locator(".card").count() == 1


def test_a_key_is_asked_for_and_serves_for_everything(
    visit: Any, start: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "keys", "add", "ann", "--data", str(tmp_path)]) == 0
    secret = capsys.readouterr().out.strip()
    server = start(tmp_path)
    studio = visit(server)
    page = studio.page
    page.goto(server.url)
    dialog = page.get_by_role("dialog", name="This server wants a key")
    dialog.get_by_label("Key", exact=True).fill("a wrong one")
    dialog.get_by_role("button", name="Use this key").click()
    expect(dialog).to_contain_text("The server does not know that key")
    dialog.get_by_label("Key", exact=True).fill(secret)
    page.keyboard.press("Enter")
    expect(page.locator("#model")).not_to_be_empty()
    expect(dialog).to_be_hidden()
    studio.fill(prompt="behind a key", steps=2)
    studio.generate()
    assert studio.frames_seen() == 3
    picture = page.locator(".card img")
    page.wait_for_function("(image) => image.naturalWidth > 0", arg=picture.element_handle())
    page.reload()
    expect(page.locator(".card")).to_have_count(1)
    assert page.evaluate("localStorage.getItem('openltx.key')") is None  # it was not to be remembered
