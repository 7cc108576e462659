"""Our own pages beside Optuna's: reached by their links, with pictures, downloads, comparison."""

from pathlib import Path

import pytest
from playwright.sync_api import expect

from s3search.schedules.schedule import Schedule
from tests.browser.conftest import Open
from tests.browser.test_report_page import PHONE, READABLE
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
    page.get_by_label("Beside it show").fill(second)
    page.get_by_role("button", name="Show").click()
    expect(page.locator("h1")).to_have_text(f"Schedule {first} and Schedule {second}")
    assert len(watched.looks("drawings")) == 2
    page.get_by_role("link", name="as a picture").first.click()
    page.wait_for_url("**/*.png")
    assert page.evaluate("document.images[0].naturalWidth") > 500


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
