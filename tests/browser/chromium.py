"""The machine's own Chromium, and what goes wrong on a page that it shows."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Dialog, Page, Request, sync_playwright

_LOOKS = Path(__file__).with_name("looks.js")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
REQUIRED = "S3SEARCH_BROWSER"  # set to "required" where a missing browser is a failure
_TAKEN_OVER = "net::ERR_ABORTED"  # a request that became a download, or that a new page cut off


def chromium_path() -> str:
    """Where the browser is; without one the test is skipped, or fails where one is required."""
    for name in NAMES:
        path = shutil.which(name)
        if path is not None:
            return path
    missing = "no Chromium on the PATH: `apt install chromium`, or Google Chrome"
    if os.environ.get(REQUIRED) == "required":
        pytest.fail(missing, pytrace=False)
    pytest.skip(missing)


@contextmanager
def chromium(path: str) -> Iterator[Browser]:
    """One browser process without a window, which ends with the block."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path,
            args=["--disable-gpu", *(["--no-sandbox"] if os.geteuid() == 0 else [])],
        )
        try:
            yield browser
        finally:
            browser.close()


class Watched:
    """A page and every complaint about it: errors on its console and in its scripts, requests
    that failed or that left the machine, dialogs.
    """

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self._origin = origin
        page.on("console", lambda said: self._note(said.type == "error", f"console: {said.text}"))
        page.on("pageerror", lambda error: self._note(True, f"script: {error}"))
        page.on("requestfailed", self._failed)
        page.on("request", self._asked)
        page.on("response", lambda r: self._note(r.status >= 400, f"status {r.status}: {r.url}"))
        page.on("dialog", self._asked_back)

    def looks(self, question: str) -> Any:
        """What a function of `looks.js` measures on the page."""
        self.page.evaluate(_LOOKS.read_text(encoding="utf-8"))
        return self.page.evaluate(f"looks.{question}()")

    def assert_pictures_are_there(self) -> None:
        """Every image has loaded and every drawing has a size; all say in words what they are."""
        pictures = [*self.looks("images"), *self.looks("drawings")]
        assert pictures
        assert [words for width, words in pictures if not (width and words)] == []

    def _note(self, is_wrong: bool, text: str) -> None:
        if is_wrong:
            self.complaints.append(text)

    def _failed(self, request: Request) -> None:
        self._note(request.failure != _TAKEN_OVER, f"failed: {request.url} ({request.failure})")

    def _asked_back(self, dialog: Dialog) -> None:
        self._note(True, f"dialog: {dialog.message}")
        dialog.dismiss()

    def _asked(self, request: Request) -> None:
        is_ours = request.url.startswith((self._origin, "data:", "blob:"))
        self._note(not is_ours, f"asked for {request.url}")
