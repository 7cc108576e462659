"""Looks at the built site: ``python -m tests.docs.look build/site``; 1 where something is wrong.

No page may fetch anything from elsewhere, complain, or scroll sideways on a telephone; the search
must find a word.  A machine without a browser is told so.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser

from tests.browser.chromium import NAMES, REQUIRED, Watched, chromium

WIDTH = 400
_HEIGHT = 900
_WORD = "optimism"  # which is on more than one page


def wrong_with(browser: Browser, folder: Path) -> Iterator[str]:
    """What is wrong with the pages, each seen at a telephone's width."""
    context = browser.new_context(viewport={"width": WIDTH, "height": _HEIGHT})
    watched = Watched(context.new_page(), folder.resolve().as_uri())
    for path in sorted({*folder.rglob("*.html")} - {folder / "index.html"}):  # which leads on
        watched.page.goto(path.resolve().as_uri())
        if (beyond := watched.looks("overhang")) > 0:
            yield f"{path.relative_to(folder)}: scrolls {beyond} pixels sideways"
    watched.page.goto(f"{(folder / 'search.html').resolve().as_uri()}?q={_WORD}")
    try:
        watched.page.wait_for_selector("#search-results li a", timeout=30_000)
    except Exception:  # a time-out of playwright's own class
        yield f"the search finds nothing for {_WORD!r}"
    yield from watched.complaints


def main(folder: Path) -> int:
    """Prints what is wrong; how the process ends."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        print("no Chromium on the PATH: nobody looked at the site")
        return int(os.environ.get(REQUIRED) == "required")
    with chromium(path) as browser:
        wrong = list(wrong_with(browser, folder))
    print("\n".join(wrong) or f"{len(list(folder.rglob('*.html')))} pages are in order")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
