"""One browser, one server and one report of a published study for all tests of a session."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from s3search.show.dashboard.publish import publish
from s3search.show.report import write_report
from s3search.study.file.config import StudyConfig
from tests.browser.chromium import Watched, chromium, chromium_path
from tests.browser.served import dashboard
from tests.support.studies import EVIL_NAME

_PATIENCE_MS = 100_000  # of a busy machine; what is there is found at once
expect.set_options(timeout=_PATIENCE_MS)


@dataclass(frozen=True, slots=True)
class Shown:
    """Where the study is to be seen."""

    url: str  # its database
    address: str  # of the dashboard
    report: str  # file:///...


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The one browser process."""
    with chromium(chromium_path()) as opened:
        yield opened


@pytest.fixture(scope="session")
def shown(
    browser: Any, finished: StudyConfig, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shown]:
    """The finished study with samples, in the dashboard that serves it and in its report."""
    folder = tmp_path_factory.mktemp("shown")
    shutil.copy(finished.storage.url.removeprefix("sqlite:///"), folder / "study.db")
    url = f"sqlite:///{folder / 'study.db'}"
    publish(url, EVIL_NAME, n_samples=4)
    write_report(url, EVIL_NAME, folder / "report.html", n_samples=4)
    with dashboard(url) as address:
        yield Shown(url, address, (folder / "report.html").as_uri())


Open = Callable[..., Watched]


@pytest.fixture
def visit(browser: Any, shown: Shown, tmp_path: Path) -> Iterator[Open]:
    """Opens an address of the dashboard, or the report, in a context of its own with Playwright's
    options for one.  No page may end with a complaint that its test did not take off the list.
    """
    opened: list[Watched] = []
    with ExitStack() as contexts:

        def visited(address: str, **options: Any) -> Watched:
            is_report = address == shown.report
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
            contexts.callback(context.close)
            context.set_default_timeout(_PATIENCE_MS)
            page = context.new_page()
            watched = Watched(page, shown.report if is_report else shown.address)
            opened.append(watched)
            page.goto(address if is_report else shown.address + address)
            page.wait_for_load_state("networkidle")
            return watched

        yield visited
        assert [complaint for each in opened for complaint in each.complaints] == []
