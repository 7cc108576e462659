"""The report in a browser: readable everywhere, alone, and by every reader."""

import subprocess
import sys
from pathlib import Path

import pytest

from s3search.schedules.schedule import Schedule
from tests.browser.conftest import Open, Shown
from tests.support.studies import EVIL_NAME

pytestmark = pytest.mark.xdist_group("browser")  # one browser and one study for all


READABLE = 4.5  # WCAG 2.2, 1.4.3: contrast of text against what is behind it
PHONE = {"width": 390, "height": 844}


def test_the_report_needs_no_network_and_shows_every_picture(shown: Shown, visit: Open) -> None:
    """`visit` fails for any request beyond the file itself."""
    report = visit(shown.report, offline=True)
    assert report.page.locator("h1").inner_text() == EVIL_NAME
    report.assert_pictures_are_there()
    assert len(report.looks("drawings")) >= 10


def test_the_slider_uncovers_one_picture_over_the_other(shown: Shown, visit: Open) -> None:
    page = visit(shown.report).page
    wipe = page.locator(".wipe").first
    over, under = wipe.locator(".over img"), wipe.locator(".stage > img")
    assert over.get_attribute("src") != under.get_attribute("src")
    slider = wipe.get_by_label("Slide between left and right")
    cut = "e => getComputedStyle(e).clipPath"
    before = wipe.locator(".over").evaluate(cut)
    slider.focus()
    page.keyboard.press("End")
    assert wipe.locator(".over").evaluate(cut) != before
    assert wipe.locator(".stage").evaluate("e => e.style.getPropertyValue('--cut')") == "100%"
    wipe.locator("select").first.select_option(index=0)
    assert str(over.get_attribute("alt")).startswith("fine solve")
    assert over.evaluate("e => e.naturalWidth") > 0


def test_a_schedule_is_downloaded_from_the_report(
    shown: Shown, visit: Open, tmp_path: Path
) -> None:
    page = visit(shown.report).page
    with page.expect_download() as caught:
        page.get_by_text("Download the winner at NFE 2").click()
    assert caught.value.suggested_filename == "schedule-2.json"
    caught.value.save_as(tmp_path / "schedule.json")
    assert Schedule.load(tmp_path / "schedule.json").nfe == 2
    command = [sys.executable, "-m", "s3search", "check", str(tmp_path / "schedule.json")]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_of_the_report_stands_out(shown: Shown, visit: Open, scheme: str) -> None:
    report = visit(shown.report, color_scheme=scheme)
    paper = report.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is (scheme == "light")
    found = report.looks("contrasts")
    assert len(found) > 300
    assert [(ratio, words) for ratio, words in found if ratio < READABLE] == []


def test_poor_contrast_would_be_found(shown: Shown, visit: Open) -> None:
    report = visit(shown.report)
    report.page.evaluate("document.querySelector('nav + ul').style.color = '#808080'")  # 3.95
    report.page.evaluate("document.querySelector('svg text').style.fill = '#ffffff'")
    found = [round(ratio, 1) for ratio, _ in report.looks("contrasts")]
    assert found[0] == 1.0
    assert 3.9 in found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_the_report_one_way_only(shown: Shown, visit: Open, scheme: str) -> None:
    report = visit(shown.report, viewport=PHONE, color_scheme=scheme, has_touch=True)
    assert report.looks("overhang") == 0
    report.assert_pictures_are_there()
    assert report.looks("clipped") == []
    assert report.looks("unreached") == []
    report.page.evaluate("scrollTo(0, 0)")
    report.page.set_viewport_size({"width": 400, "height": 800})
    for part in ("#verdict", ".two svg", ".first .stage", ".first input", "#next a"):
        box = report.page.locator(part).first.bounding_box()
        assert box and box["y"] + box["height"] <= 800, part
    scrolling = report.page.locator("#comparison .wide").first
    before = "e => getComputedStyle(e, '::before').content"
    assert "scrolls sideways" in scrolling.evaluate(before)
    assert not report.page.locator("#provenance dl").is_visible()  # folded


def test_the_report_prints_on_paper(shown: Shown, visit: Open) -> None:
    """Dark readers print on white too, without what only a screen can do; what scrolls on a
    screen is there whole.
    """
    report = visit(shown.report, color_scheme="dark")
    report.page.emulate_media(media="print", color_scheme="dark")
    style = "getComputedStyle(document.body).backgroundColor"
    assert report.page.evaluate(style) == "rgb(255, 255, 255)"
    assert not report.page.locator("nav").first.is_visible()
    assert not report.page.locator(".wipe").first.is_visible()
    report.page.set_viewport_size({"width": 718, "height": 1000})  # A4 less its margins, 96 dpi
    assert report.looks("overhang") == 0
    assert report.page.pdf().startswith(b"%PDF-")
    assert [ratio for ratio, _ in report.looks("contrasts") if ratio < READABLE] == []
