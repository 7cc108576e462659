"""Words that the program shows: headings of its tables and pages, and names it gives to things.

They are read from the code and the templates, so that a new one is found wherever it is added.
"""

import ast
import re
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from s3search.evaluation.record import Status
from s3search.search import gains
from s3search.search.ladder import LadderRung
from s3search.search.questions import Rung
from s3search.search.trial import OriginKind
from s3search.study.results.claims import Verdict
from s3search.study.results.table import COLUMNS
from s3search.tasks.robustness import Held
from tests.docs.pages import ROOT

SHOWN_FROM = ("s3search/show", "s3search/cli")
KINDS: tuple[type[StrEnum], ...] = (LadderRung, Rung, OriginKind, Verdict, Held, Status)

_HEADING = re.compile(r"<(th|h2|h3|dt|caption)\b[^>]*>(.*?)</\1>", re.DOTALL)
_FILLED_IN = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|<[^>]*>", re.DOTALL)


def headings_of_pages() -> Iterator[tuple[str, str]]:
    """Where it stands, and the fixed words of each heading of a page that the program writes."""
    for folder in SHOWN_FROM:
        for path in sorted((ROOT / folder).rglob("*.j2")):
            for tag, inside in _HEADING.findall(path.read_text(encoding="utf-8")):
                if tag != "caption":
                    yield path.name, _FILLED_IN.sub("", inside)


def headings_of_tables() -> Iterator[tuple[str, str]]:
    """Where it stands, and each heading of a table for the terminal."""
    for folder in SHOWN_FROM:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                for constant in _headings(node):
                    yield path.name, constant


def _headings(node: ast.AST) -> Iterator[str]:
    """Texts given to `add_column`, what a loop gives to it, and what is called headings."""
    if isinstance(node, ast.Call) and _is_column(node):
        yield from _texts(*node.args[:1])
    elif isinstance(node, ast.For) and any(map(_is_column, ast.walk(node))):
        yield from _texts(node.iter)
    elif isinstance(node, ast.Assign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(each, ast.Name) and "head" in each.id for each in targets):
            yield from _texts(node.value)


def _is_column(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("add_column", "append")
        and any("head" in ast.unparse(node.func) or node.func.attr == "add_column" for _ in "1")
    )


def _texts(*nodes: ast.AST) -> Iterator[str]:
    for root in nodes:
        for node in ast.walk(root):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def names() -> Iterator[tuple[str, str]]:
    """Where it comes from, and each name of a rung, stage, origin, verdict or column."""
    for kind in KINDS:
        yield from ((kind.__name__, member.value) for member in kind)
    for name, value in vars(gains).items():
        if name.isupper() and isinstance(value, str):
            yield "stages", value
    yield from (("found.table", column) for column in COLUMNS)


def shown() -> dict[str, str]:
    """Every word or phrase, in the form of the glossary, and where it is shown."""
    found: dict[str, str] = {}
    for where, text in (*headings_of_pages(), *headings_of_tables(), *names()):
        term = normal(text)
        if re.search(r"[a-z]", term):
            found.setdefault(term, where)
    return found


def normal(text: str) -> str:
    """Small letters, blanks for underscores, and nothing around the words."""
    return " ".join(text.replace("_", " ").lower().split()).strip(" ():.,")


def explained(glossary: Path) -> set[str]:
    """The terms of the glossary: what is bold at the beginning of an item of its lists."""
    items = re.findall(r"^- (\*\*.*?):", glossary.read_text(encoding="utf-8"), re.MULTILINE)
    return {normal(term) for item in items for term in re.findall(r"\*\*(.+?)\*\*", item)}
