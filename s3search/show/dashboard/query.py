"""What stands behind an address's question mark."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlencode
from wsgiref.types import WSGIEnvironment


class Query(dict[str, list[str]]):
    """The values of every key that was asked with."""

    @classmethod
    def of(cls, environ: WSGIEnvironment) -> "Query":
        """Those of a request."""
        return cls(parse_qs(str(environ.get("QUERY_STRING", ""))))

    def first(self, key: str) -> str:
        """The first value; empty where there is none."""
        return self.get(key, [""])[0]

    def whole(self, key: str, otherwise: int) -> int:
        """The first value as a whole number; ``otherwise`` where it is none."""
        text = self.first(key)
        is_number = text.isascii() and text.isdigit() and len(text) < 10
        return int(text) if is_number else otherwise


def address_of(asked: Mapping[str, Any], start: int) -> str:
    """What is asked, as an address says it, from a row on."""
    return urlencode({**{key: value for key, value in asked.items() if value}, "from": start})
