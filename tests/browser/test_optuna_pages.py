"""Optuna's pages inside our server: they show what we published, and change nothing."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from playwright.sync_api import Locator, expect

from s3search.show.dashboard.storage import open_storage
from tests.browser.chromium import Watched
from tests.browser.conftest import Open, Shown
from tests.support.studies import EVIL_NAME

pytestmark = pytest.mark.xdist_group("browser")  # one browser and one study for all


def _take_refusal(watched: Watched, address: str) -> None:
    """Takes one refused change off a page's complaints: its status, and the browser's line about
    it.
    """
    line = "Failed to load resource: the server responded with a status of 403 (Forbidden)"
    for complaint in (f"status 403: {address}", f"console: {line}"):
        watched.complaints.remove(complaint)


@pytest.fixture(scope="module")
def trial(shown: Shown) -> optuna.trial.FrozenTrial:
    """A trial with artifacts."""
    storage = open_storage(shown.url, writable=False)
    try:
        study = optuna.load_study(study_name=EVIL_NAME, storage=storage)
        listed = storage.get_study_system_attrs(study._study_id)
        (key, *_) = [key for key in listed if key.startswith("dashboard:artifacts:")]
        number = int(key.split(":")[2])
        return next(each for each in study.trials if each._trial_id == number)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def test_a_study_is_listed_by_its_name_and_cannot_be_deleted(shown: Shown, visit: Open) -> None:
    """There is no button for it, and whoever asks without one is refused."""
    watched = visit("/dashboard")
    page = watched.page
    name = page.get_by_text(EVIL_NAME)
    expect(name).to_be_visible()
    for label in ("delete study", "rename study"):
        assert not page.get_by_label(label).is_visible()
    address = f"{shown.address}/api/studies/1"
    asked = "address => fetch(address, {method: 'DELETE'}).then(reply => reply.status)"
    assert page.evaluate(asked, address) == 403
    page.reload()
    expect(name).to_be_visible()
    _take_refusal(watched, address)


def test_a_study_shows_our_graphs_and_a_note_that_leads_to_our_page(visit: Open) -> None:
    """The graphs are in the dashboard's theme, as wide as it is."""
    watched = visit("/dashboard/studies/1", color_scheme="dark")
    page = watched.page
    for nfe in (2, 3):
        for title in ("best so far", "distance on held-out noise", "times of the best", "choices"):
            expect(page.locator(".gtitle", has_text=f"NFE {nfe}: {title}")).to_be_visible()
    expect(page.locator(".gtitle", has_text="What the study cost")).to_be_visible()
    titles = " ".join(page.locator(".gtitle").all_text_contents())
    places = [titles.index(f"{each}: best so far") for each in ("NFE 2", "NFE 3")]
    assert places[0] < places[1] < titles.index("What the study cost")
    expect(page.locator(".js-line").nth(9)).to_be_attached()  # published, found, times
    amounts = page.locator(".bartext-outside")
    expect(amounts.nth(9)).to_be_attached()
    assert min(box["height"] for box in map(Locator.bounding_box, amounts.all()) if box) > 8
    title = page.locator(".gtitle", has_text="What the study cost")
    assert title.evaluate("e => getComputedStyle(e).fill") == "rgb(255, 255, 255)"
    paper = page.locator("[id^=user-defined-plot] .main-svg").first
    assert paper.evaluate("e => getComputedStyle(e).backgroundColor") == "rgba(0, 0, 0, 0)"
    assert paper.evaluate("e => e.getBoundingClientRect().width > 0.8 * innerWidth")
    page.locator("a[href$='/note']").click()
    expect(page.get_by_role("heading", name=EVIL_NAME)).to_be_visible()
    expect(page.get_by_role("heading", name="Found")).to_be_visible()
    expect(page.locator("table tr").nth(10)).to_be_attached()
    assert page.locator("a[href^=javascript]").count() == 0
    page.get_by_role("link", name="its own page").click()
    expect(page.locator("h1")).to_have_text(EVIL_NAME)


def test_a_trial_shows_its_pictures_and_gives_its_schedule(
    visit: Open, trial: optuna.trial.FrozenTrial, tmp_path: Path
) -> None:
    watched = visit(f"/dashboard/studies/1/trials?numbers={trial.number}")
    page = watched.page
    short = trial.user_attrs["schedule_id"][:8]
    page.get_by_label("download artifact").first.wait_for()
    for width in (1400, 400):
        page.set_viewport_size({"width": width, "height": 900})
        assert watched.looks("overhang") == 0
    assert not page.get_by_test_id("EditIcon").is_visible()
    assert not page.get_by_label("delete artifact").first.is_visible()
    for name in (f"schedule-{short}.png", f"samples-{short}.png"):
        picture = page.get_by_alt_text(name)
        expect(picture).to_be_visible()
        page.wait_for_function(
            "e => e.complete && e.naturalWidth > 0", arg=picture.element_handle()
        )
    downloads = page.get_by_label("download artifact")
    expect(downloads).to_have_count(3)
    kept = {}
    for place in range(3):
        with page.expect_download() as caught:
            downloads.nth(place).click()
        name = caught.value.suggested_filename
        caught.value.save_as(tmp_path / name)
        kept[name] = tmp_path / name
    assert kept[f"schedule-{short}.png"].read_bytes().startswith(b"\x89PNG")
    command = [sys.executable, "-m", "s3search", "check", str(kept[f"schedule-{short}.json"])]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    page.get_by_role("link", name="Drawing, samples and JSON").click()
    expect(page.locator("h1")).to_have_text(f"Schedule {short}")
