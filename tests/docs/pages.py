"""The pages of the documentation, and the blocks of code on them.

A comment that no reader sees may stand above a block:

    <!-- not run: REASON -->      it needs a hub, a GPU or what a reader has; it is compiled, and
                                  what it imports and calls must exist
    <!-- part of: FILE -->        of a file that other tests run; of TOML the table that it is of
    <!-- given: NAMES -->         names of `tests.docs.given`, bound before the block runs
    <!-- small: NAME = VALUE -->  what runs after the block, to make the next ones small
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import s3search
from tests.docs.given import GIVEN

ROOT = Path(s3search.__file__).parents[1]
DOCS = ROOT / "docs"
RUN_APART = {  # by `tests.test_docs`, which looks at what they define
    DOCS / "python.md",
    DOCS / "metrics.md",
    DOCS / "how-to" / "own-solver.md",
    *(DOCS / "tutorial").glob("*.md"),  # by `tests.docs.test_tutorial`, as notebooks
}

BLOCK = re.compile(
    r"(?:^ *<!-- (?P<mark>[^>]*?) -->\n+)?^(?P<indent> *)```(?P<language>[\w{}-]*)\n(?P<code>.*?)"
    r"^(?P=indent)```",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of code on a page."""

    page: Path
    line: int
    language: str
    code: str
    mark: str

    @property
    def where(self) -> str:
        """Page and line of its first line of code."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def marked(self, kind: str) -> str | None:
        """What its comment says after ``kind``, if it is of this kind."""
        return self.mark.removeprefix(f"{kind}:").strip() if self.mark.startswith(kind) else None


def pages() -> list[Path]:
    """All that a reader of the documentation reads, but for the change log."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
    for folder in ("search_spaces", "workers", "dashboards", "examples"):
        found += sorted((ROOT / folder).rglob("*.md"))
    return found


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    """The blocks of code of a page, in their order."""
    text = page.read_text(encoding="utf-8")
    return tuple(
        Block(
            page=page,
            line=text.count("\n", 0, match.start("code")) + 1,
            language=match["language"],
            code="".join(
                line.removeprefix(match["indent"]) for line in match["code"].splitlines(True)
            ),
            mark=match["mark"] or "",
        )
        for match in BLOCK.finditer(text)
    )


def blocks_of(language: str) -> Iterator[Block]:
    """Those of all pages in one language."""
    for page in pages():
        yield from (block for block in blocks(page) if block.language == language)


def run_python(page: Path) -> Mapping[str, Any]:
    """Runs a page's blocks of Python from its top, in the current folder; what they defined."""
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if block.language != "python" or block.mark.startswith(("not run", "part of")):
            continue
        for name in (block.marked("given") or "").split(", "):
            if name:
                names[name] = GIVEN[name]()
        # so that a traceback has the page's own line
        code = "\n" * (block.line - 1) + block.code
        exec(compile(code, str(page.relative_to(ROOT)), "exec"), names)
        if (small := block.marked("small")) is not None:
            exec(small, names)
    return names
