"""The README's screenshots: ``python -m tests.browser.screenshots FOLDER``.

A small study of the embedded digits model is searched in the folder, unless it is there already,
then published, served and opened.  Each picture is a part of a page, written with few colours.
"""

import io
import sys
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, expect

from s3search.run.launching import launch
from s3search.show.dashboard.publish import publish
from s3search.show.report import write_report
from s3search.study.file.config import load_config
from tests.browser.chromium import chromium, chromium_path
from tests.browser.served import dashboard

_NAME = "digits-nfe5"
_STUDY = """\
[study]
name = "{name}"
[model]
loader = "digits"
[space]
preset = "usf"
nfe = [5]
[metric]
features = "digits"
[reference]
images = "digits"
[search]
evaluations = 100
[validation]
n_images = 10000
[validation.metric]
features = "digits"
network = "b"
[storage]
url = "sqlite:///{folder}/study.db"
[cluster]
address = "inline"
"""
_SIZE = {"width": 1200, "height": 900}
_N_SAMPLES = 24
_MOST_COLOURS = 128


def take(folder: Path) -> None:
    """Writes page-report.png, page-dashboard.png and page-schedule.png into a folder."""
    url = f"sqlite:///{folder}/study.db"
    _search(folder)
    publish(url, _NAME, n_samples=_N_SAMPLES)
    write_report(url, _NAME, folder / "report.html", n_samples=_N_SAMPLES)
    with dashboard(url) as address, chromium(chromium_path()) as browser:
        page = browser.new_context(viewport=_SIZE).new_page()
        page.set_default_timeout(100_000)
        expect.set_options(timeout=100_000)
        for name, path, prepare in (
            ("report", (folder / "report.html").as_uri(), _report),
            ("dashboard", f"{address}/dashboard/studies/1", _graphs),
            ("schedule", f"{address}/ranking/{_NAME}", _schedule),
        ):
            page.goto(path)
            prepare(page)
            _save(page, folder / f"page-{name}.png")


def _search(folder: Path) -> None:
    if (folder / "study.db").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.toml").write_text(_STUDY.format(name=_NAME, folder=folder.resolve()))
    launch(load_config(folder / "study.toml"), lambda _: None)


def _report(page: Page) -> None:
    """From the top, as far as the graph of distances."""
    _fit(page, page.locator("#comparison figure").first)


def _graphs(page: Page) -> None:
    """Our graphs among Optuna's."""
    page.set_viewport_size({**_SIZE, "height": 1070})
    for title in ("best so far", "distance on held-out noise", "times of the best", "choices"):
        expect(page.locator(".gtitle", has_text=title)).to_be_visible()
    _until_still(page)
    page.locator(".gtitle", has_text="best so far").evaluate(
        "e => e.closest('.MuiCard-root').scrollIntoView()"
    )
    page.mouse.wheel(0, -80)  # the bar on top covers the first lines


def _schedule(page: Page) -> None:
    """The best schedule of the ranking, drawn, with samples."""
    page.locator("tbody th a").first.click()
    samples = page.locator("img").first
    samples.wait_for()
    _fit(page, samples)


def _fit(page: Page, last: Locator) -> None:
    """Makes the window as high as the page down to an element."""
    box = last.bounding_box()
    assert box is not None
    page.set_viewport_size({**_SIZE, "height": int(box["y"] + box["height"]) + 12})


def _until_still(page: Page) -> None:
    """Waits for two equal pictures in a row."""
    before = b""
    while before != (now := page.screenshot(animations="disabled")):
        before = now
        time.sleep(0.5)


def _save(page: Page, path: Path) -> None:
    _until_still(page)
    picture = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    few = picture.quantize(_MOST_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


if __name__ == "__main__":
    take(Path(sys.argv[1]))
