"""The page itself: for everybody (axe), on a phone, in the dark, with keys alone, and with nothing from elsewhere."""

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from openltx.serve.routes.studio import parts


def violations(page: Any) -> list[str]:
    """What axe finds that is serious or worse."""
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes']]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious_in_light_and_dark(visit: Any, server: Any, width: int) -> None:
    made = [server.create(f"a lamp for axe {seed}", steps=1, seed=seed)["id"] for seed in (1, 2)]
    for job in made:
        server.finished(job)
    studio = visit(server, viewport={"width": width, "height": 844}).open(f"#{made[0]}")
    page = studio.page
    studio.video()
    assert violations(page) == []
    page.get_by_role("button", name="Start a new video from the last frame").click()
    page.locator("summary").click()
    page.locator(f'.card[data-id="{made[1]}"]').hover()
    page.get_by_role("button", name="Compare with a lamp for axe 2").first.click()
    studio.video(1)
    studio.fill(prompt="x", frames=100_001)
    expect(page.locator("#complaint")).to_be_visible()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert violations(page) == []
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")  # nothing sticks out
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Help and keys").click()
    assert violations(page) == []


def test_keys_alone_make_a_video(studio: Any, server: Any) -> None:
    page = studio.page
    page.keyboard.press("n")
    expect(page.locator("#prompt")).to_be_focused()
    page.keyboard.type("made without a mouse")
    while page.evaluate("document.activeElement.id") != "steps":
        page.keyboard.press("Tab")
    page.keyboard.press("Control+a")
    page.keyboard.type("2")
    page.keyboard.press("Control+Enter")
    studio.video()
    assert server.get(page.url.partition("#")[2])["request"]["steps"] == 2


def test_light_and_dark_are_chosen_and_kept(studio: Any) -> None:
    page = studio.page
    colour = "getComputedStyle(document.body).backgroundColor"
    button = page.get_by_role("button", name="Colours")
    seen = set()
    for theme in ("light", "dark"):
        button.click()
        page.reload()
        expect(page.locator("html")).to_have_attribute("data-theme", theme)
        seen.add(page.evaluate(colour))
    assert len(seen) == 2


def test_the_files_are_served_by_name_and_nothing_else(server: Any) -> None:
    page = server.call("GET", "/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "'unsafe" not in page.headers["content-security-policy"]
    assert {"index.html", "main.js", "studio.css", "icons.svg"} <= set(parts())
    for name, part in parts().items():
        answer = server.call("GET", f"/studio/{name}")
        assert (answer.status, answer.body) == (200, part.body)
        assert server.call("GET", f"/studio/{name}", headers={"If-None-Match": part.tag}).status == 304
    for name in ("..%2Fpage.py", "%2e%2e/app.py", "__init__.py", "", "../app.py", "no.js"):
        answer = server.call("GET", f"/studio/{name}")
        assert (answer.status, answer.error["code"]) == (404, "not_found")


def test_the_page_of_the_api_has_its_style(visit: Any, server: Any) -> None:
    page = visit(server).page
    page.goto(f"{server.url}/docs")
    assert page.evaluate("getComputedStyle(document.querySelector('td')).borderBottomStyle") == "solid"
