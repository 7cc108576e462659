"""Words that the program shows: headings of its tables and pages, and names it gives to things.

They are read from the code and the templates, so that a new one is found wherever it is added.
"""

import ast
import re
from collections.abc import Iterator
from enum import StrEnum

from s3search.evaluation.record import Status
from s3search.search import gains
from s3search.search.ladder import LadderRung
from s3search.search.questions import Rung
from s3search.search.trial import OriginKind
from s3search.study.results.claims import Verdict
from s3search.study.results.table import COLUMNS
from s3search.tasks.robustness import Held
from tests.docs.pages import ROOT

KINDS: tuple[type[StrEnum], ...] = (LadderRung, Rung, OriginKind, Verdict, Held, Status)

_HEADING = re.compile(r"<(th|h2|dt)\b[^>]*>(.*?)</\1>", re.DOTALL)
_FILLED_IN = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|<[^>]*>", re.DOTALL)
_HEADINGS = {"head", "heads", "heading", "headings"}


def headings_of_pages() -> Iterator[tuple[str, str]]:
    """Where it stands, and the fixed words of each heading of a page that the program writes."""
    for path in sorted((ROOT / "s3search/show").rglob("*.j2")):
        for _, inside in _HEADING.findall(path.read_text(encoding="utf-8")):
            yield path.name, _FILLED_IN.sub("", inside)


def headings_of_tables() -> Iterator[tuple[str, str]]:
    """Where it stands, and each heading of a table for the terminal, line of provenance and state
    of a study.
    """
    for room in ("cli", "run", "search", "show"):
        for path in sorted((ROOT / "s3search" / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                yield from ((path.name, text) for text in _headings(node))


def _headings(node: ast.AST) -> Iterator[str]:
    """Texts given to `add_column`, what a loop gives to it, what is called headings, and lines of
    a table that are written out.
    """
    match node:
        case ast.Call(func=ast.Name(id="StageWords"), args=[first, *_]):
            yield from _texts(first)
        case ast.Call(func=ast.Attribute(attr="add_column" | "set_state"), args=[first, *_]):
            yield from _texts(first)
        case ast.Call(
            func=ast.Attribute(attr="append", value=ast.Name(id=name)), args=[first]
        ) if name in _HEADINGS:
            yield from _texts(first)
        case ast.For(iter=ast.Tuple() as listed) if "add_column" in ast.unparse(node):
            yield from _texts(listed)
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=ast.Tuple() | ast.List() as listed)
            | ast.AugAssign(target=ast.Name(id=name), value=ast.List() as listed)
        ) if name in _HEADINGS:
            yield from _texts(listed)
        case ast.Call(func=ast.Name(id=name), args=[ast.Tuple(elts=cells)]) if name.endswith(
            "_line"
        ) and all(isinstance(cell, ast.Constant) for cell in cells):
            yield from _texts(*cells)
        case ast.FunctionDef(name="_provenance"):
            for each in ast.walk(node):
                if isinstance(each, ast.Dict):
                    yield from _texts(*(key for key in each.keys if key is not None))


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
    """Small letters, blanks for underscores and hyphens, and nothing around the words."""
    return " ".join(re.sub("[_-]", " ", text).replace("/", " / ").lower().split()).strip(" ():.,")


def explained(page: str) -> set[str]:
    """The terms of the glossary: what is bold at the beginning of an item of its lists."""
    items = re.findall(r"^- (\*\*.*?\*\*): ", page, re.MULTILINE)
    return {normal(term) for item in items for term in re.findall(r"\*\*(.+?)\*\*", item)}


def is_explained(term: str, terms: set[str]) -> bool:
    """Whether the glossary has the term, or each of its parts between commas."""
    parts = (re.sub(r"^(of|and) | of (a|b)$", "", part.strip()) for part in term.split(","))
    return term in terms or all(part in terms for part in parts)
