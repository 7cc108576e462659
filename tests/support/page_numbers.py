"""The numbers that a person reads on a page."""

import html
import re

_UNSEEN = re.compile(r"<(style|script|svg)\b.*?</\1>", re.DOTALL)
_TAG = re.compile(r"<[^>]+>")
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


def page_numbers(page: str) -> list[str]:
    """Those of an HTML page in their order, as they are written; of drawings and scripts none."""
    text = html.unescape(_TAG.sub(" ", _UNSEEN.sub(" ", page)))
    return _NUMBER.findall(text)
