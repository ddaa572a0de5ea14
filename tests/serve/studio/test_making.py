"""From a prompt to a video that plays: progress, preview, queue, cancel, remix, and messages in words."""

import re
from typing import Any

from playwright.sync_api import expect

FORMING = """() => document.querySelector("#screen .preview img")?.naturalWidth > 0
    && /^Step [0-9]+ of 60/.test(document.querySelector("#screen .state").textContent)"""


def test_a_prompt_becomes_a_video_that_plays_and_a_remix_of_it(studio: Any, server: Any) -> None:
    page = studio.page
    studio.fill(prompt="a red ball bounces", steps=60, size="256x256", frames=17)
    expect(page.get_by_label("What it takes")).to_contain_text(re.compile(r"about .* s.*MB of memory"))
    job = studio.generate()
    with studio.held(job):
        page.wait_for_function(FORMING)
    assert studio.frames_seen() == 3
    expect(page.locator("#news")).to_contain_text("Finished: a red ball bounces")
    expect(page.locator("#about")).to_contain_text("256x256")

    page.get_by_role("button", name="The same settings with a new seed").click()
    expect(page.locator("#screen video")).to_have_count(0)
    studio.video()
    remixed = server.get(page.url.partition("#")[2])
    assert remixed["remixed_from_video_id"] == job
    first, second = server.get(job)["request"], remixed["request"]
    assert first["seed"] != second["seed"]
    assert {**first, "seed": 0} == {**second, "seed": 0}
    assert page.locator(".card.shown").get_attribute("data-id") == remixed["id"]


def test_a_running_job_and_a_waiting_one_are_cancelled(studio: Any, server: Any, slow: dict[str, Any]) -> None:
    page = studio.page
    studio.fill(prompt="the first of two", **slow)
    first = studio.generate()
    expect(page.locator("#screen .state")).to_contain_text("Step")
    studio.fill(prompt="the second of two")
    second = studio.generate()
    rows = page.locator("#jobs li")
    expect(rows.nth(1)).to_contain_text("Waiting, 1 of yours before it")
    page.get_by_role("button", name="Cancel the second of two").click()
    expect(rows).to_have_count(1)
    expect(page.locator("#screen")).to_contain_text("This video was cancelled.")
    rows.get_by_role("button", name="the first of two", exact=False).first.click()
    page.get_by_role("button", name="Cancel this video").click()
    expect(page.locator("#queue")).to_be_hidden()
    for job in (first, second):
        assert server.get(job)["status"] == "cancelled"
        expect(page.locator(f'.card[data-id="{job}"] .badge')).to_have_text("cancelled")


def test_settings_are_the_models_own_until_they_are_changed(studio: Any, server: Any) -> None:
    page = studio.page
    own = server.call("GET", "/v1/models").json()["data"][0]["defaults"]
    for name in ("frames", "steps", "cfg", "fps"):
        assert float(page.locator(f"#{name}").input_value()) == own[name]
    studio.fill(prompt="nothing is set")
    studio.generate()
    assert studio.sent == {"prompt": "nothing is set"}
    page.get_by_label("Steps, slider").fill("7")
    expect(page.locator("#steps")).to_have_value("7")
    page.get_by_role("button", name="Draw a seed").click()
    seed = int(page.locator("#seed").input_value())
    request = server.finished(studio.generate())["request"]
    assert (request["steps"], request["seed"], request["cfg"]) == (7, seed, own["cfg"])
    page.get_by_role("button", name="Steps: the model's own").click()
    expect(page.locator("#steps")).to_have_value(str(own["steps"]))


def test_what_cannot_be_made_is_said_in_words(studio: Any) -> None:
    page = studio.page
    complaint = page.locator("#complaint")
    page.get_by_role("button", name="Generate").click()
    expect(complaint).to_contain_text("Say first what the video shows")
    expect(page.locator("#prompt")).to_be_focused()
    studio.fill(prompt="far too long", frames=100_001)
    expect(complaint).to_contain_text("too many")
    studio.fill(frames=9)
    expect(complaint).to_be_hidden()
    page.locator("#examples button").first.click()
    expect(page.locator("#prompt")).not_to_have_value("far too long")
