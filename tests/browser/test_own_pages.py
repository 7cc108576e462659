"""Our own pages beside Optuna's: reached by their links, with pictures, downloads, comparison."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

from s3search.schedules.schedule import Schedule
from s3search.study.file.config import StudyConfig
from tests.browser.chromium import Watched
from tests.browser.conftest import Open
from tests.browser.served import dashboard
from tests.browser.test_report_page import PHONE, READABLE
from tests.show.dashboard.rewinding import rewound
from tests.support.studies import EVIL_NAME

pytestmark = pytest.mark.xdist_group("browser")  # one browser and one study for all


def test_from_the_overview_to_two_schedules_side_by_side(visit: Open, tmp_path: Path) -> None:
    watched = visit("/studies")
    page = watched.page
    page.get_by_role("link", name=EVIL_NAME).click()
    expect(page.locator("h1")).to_have_text(EVIL_NAME)
    watched.assert_pictures_are_there()
    page.get_by_role("link", name="Its schedules").click()
    page.get_by_role("link", name="NFE 3").click()
    links = page.locator("tbody th a")
    first, second = links.nth(0).inner_text(), links.nth(1).inner_text()
    links.nth(0).click()
    expect(page.locator("h1")).to_have_text(f"Schedule {first}")
    watched.assert_pictures_are_there()
    with page.expect_download() as caught:
        page.get_by_role("link", name="Download it as JSON").click()
    assert caught.value.suggested_filename == f"schedule-{first}.json"
    caught.value.save_as(tmp_path / "schedule.json")
    assert Schedule.load(tmp_path / "schedule.json").id.startswith(first)
    page.get_by_role("link", name="as a picture").first.click()
    page.wait_for_url("**/*.png")
    assert page.evaluate("document.images[0].naturalWidth") > 500
    page.go_back()
    page.go_back()
    for short in (first, second):
        page.get_by_label(f"Compare {short}").focus()
        page.keyboard.press("Space")
    page.get_by_role("button", name="Compare").press("Enter")
    expect(page.locator("h1")).to_have_text(f"{first} and {second}")
    watched.assert_pictures_are_there()
    over = page.locator(".wipe .over img")
    assert over.get_attribute("alt") == f"Samples of {first}"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_own_pages_are_readable_on_a_phone(visit: Open, scheme: str) -> None:
    watched = visit("/studies", viewport=PHONE, color_scheme=scheme)
    page = watched.page
    for step in (None, "schedules", None):
        if step is not None:
            page.get_by_role("link", name=step, exact=True).click()
        elif page.url.count("/ranking"):
            page.locator("tbody th a").first.click()
            watched.assert_pictures_are_there()
        assert watched.looks("unreached") == []
        for width in (1400, 400):
            page.set_viewport_size({"width": width, "height": 900})
            assert watched.looks("overhang") == 0
        assert watched.looks("clipped") == []
        assert [found for found in watched.looks("contrasts") if found[0] < READABLE] == []


def test_what_is_not_there_is_said_on_a_page(visit: Open) -> None:
    watched = visit("/schedules/0123456789abcdef")
    expect(watched.page.get_by_text("no schedule in this database")).to_be_visible()
    missing = [complaint for complaint in watched.complaints if "404" in complaint]
    assert len(missing) == 2  # its status, and the browser's line about it
    for complaint in missing:
        watched.complaints.remove(complaint)


def test_a_running_study_s_page_follows_it_and_keeps_what_a_person_does(
    browser: Any, finished: StudyConfig, tmp_path: Path
) -> None:
    """Without a reload, within five seconds of a result, to its end; then it asks no more."""
    with rewound(finished, tmp_path) as study, dashboard(study.url) as address:
        study.goes_on(12)
        page = browser.new_context(viewport=PHONE).new_page()
        watched = Watched(page, address)
        page.goto(f"{address}/studies/{quote(EVIL_NAME, safe='')}")
        page.evaluate("window.isSame = true")
        page.locator("input.tick").nth(2).check()
        page.keyboard.press("Tab")
        focused = page.evaluate("document.activeElement.id")
        assert focused.startswith("to-")
        study.goes_on(1)
        expect(page.get_by_text("13 schedules measured")).to_be_visible(timeout=5000)
        assert page.locator("input.tick:checked").count() == 1
        assert page.evaluate("document.activeElement.id") == focused
        watched.assert_pictures_are_there()
        assert watched.looks("overhang") == 0
        assert [found for found in watched.looks("contrasts") if found[0] < READABLE] == []
        study.ends()
        expect(page.get_by_role("link", name="What was found")).to_be_visible(timeout=5000)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.wait_for_timeout(2500)
        assert asked == [] and page.evaluate("window.isSame") and watched.complaints == []
