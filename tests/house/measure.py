"""The structure of the package in numbers: ``python -m tests.house.measure [--json]``.

All is read from the source by `ast`, nothing is imported or run; the migrations' versions are left
out, since they are history.  ``--root`` names another checkout, such as the code of yesterday, and
``--start module:function:name`` another value for the rooms (`tests.house.rooms`).
"""

import argparse
import ast
import io
import json
import re
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.house.rooms import Place, Rooms, default_start, read_layers, walk
from tests.house.source import (
    Function,
    Module,
    Modules,
    decorators,
    definitions,
    imports_of,
    parameters,
    read_modules,
)

ROOT = Path(__file__).resolve().parents[2]
LONGEST_CLASS = 250  # lines
LONGEST_FUNCTION = 50  # lines
MOST_ARGUMENTS = 6
FEWEST_WORDS = 3  # of a docstring
ALLOWED_ON_TOP = ("__init__", "__main__", "errors", "processes", "files")
OLD_WORDS = (
    "told",
    "lab",
    "guide",
    "worth",
    "bar",
    "race",
    "witness",
    "floor",
    "padding",
    "padded",
    "freed",
    "FreeTable",
    "movable",
    "descent",
    "tail",
    "answers",
    "crew",
    "overdue",
    "sheets",
)


@dataclass(frozen=True, slots=True)
class Named:
    """A definition or module, and how much of something it has."""

    name: str  # "module:qualified name", or a module or folder
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleLengths:
    """How long the modules are, in lines; the percentiles are lengths of actual modules."""

    p50: int
    p90: int
    longest: Named


@dataclass(frozen=True, slots=True, kw_only=True)
class WordCount:
    """Where one old word still stands, in any case of its letters."""

    code: int  # names that are this word, but for underscores at their ends
    comments: int
    docstrings: int
    parts: int  # names that hold the word as a part: "told_by", "StudyLab"; includes ``code``
    names: list[str]  # the different names of ``parts``

    @property
    def total(self) -> int:
        """How often it stands as a whole word in code, comments and docstrings."""
        return self.code + self.comments + self.docstrings


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """All that is measured of one checkout."""

    n_modules: int
    n_lines: int
    module_lengths: ModuleLengths
    long_classes: list[Named]
    long_functions: list[Named]
    many_arguments: list[Named]
    folders: list[Named]
    n_arrows: int
    cycles: list[list[str]]
    homonyms: dict[str, list[str]]
    words: dict[str, WordCount]
    loose_modules: list[str]
    same_docstrings: list[str]
    without_docstring: list[str]
    short_docstrings: list[str]
    rooms: Rooms | None  # None where the start is not in this checkout
    rooms_of_whole: Rooms | None  # only the value itself followed, not its attributes


def measure(root: Path = ROOT, start: Place | None = None) -> Figures:
    """Measures the package in the checkout at ``root``."""
    modules = read_modules(root)
    arrows = {name: imports_of(module, modules) for name, module in modules.items()}
    without, short = weak_docstrings(modules)
    return Figures(
        n_modules=len(modules),
        n_lines=sum(module.n_lines for module in modules.values()),
        module_lengths=module_lengths(modules),
        long_classes=long_classes(modules),
        long_functions=long_functions(modules),
        many_arguments=many_arguments(modules),
        folders=modules_by_folder(modules),
        n_arrows=sum(map(len, arrows.values())),
        cycles=cycles(arrows),
        homonyms=homonyms(modules),
        words=count_words(modules, OLD_WORDS),
        loose_modules=loose_modules(modules),
        same_docstrings=same_docstrings(modules),
        without_docstring=without,
        short_docstrings=short,
        rooms=rooms(root, modules, start),
        rooms_of_whole=rooms(root, modules, start, with_parts=False),
    )


def module_lengths(modules: Modules) -> ModuleLengths:
    """The median, the 90th percentile (nearest rank) and the longest of the modules' lengths."""
    by_length = sorted(modules.values(), key=lambda module: (module.n_lines, module.name))
    n, longest = len(by_length), by_length[-1]
    return ModuleLengths(
        p50=by_length[-(-n * 50 // 100) - 1].n_lines,
        p90=by_length[-(-n * 90 // 100) - 1].n_lines,
        longest=Named(longest.name, longest.n_lines),
    )


def long_classes(modules: Modules, most: int = LONGEST_CLASS) -> list[Named]:
    """Classes over ``most`` lines, the longest first."""
    return _descending(
        Named(f"{module.name}:{name}", _length(node))
        for module, name, node in _all(modules)
        if isinstance(node, ast.ClassDef) and _length(node) > most
    )


def long_functions(modules: Modules, most: int = LONGEST_FUNCTION) -> list[Named]:
    """Functions and methods over ``most`` lines with their docstrings, the longest first."""
    return _descending(
        Named(f"{module.name}:{name}", _length(node))
        for module, name, node in _all(modules)
        if not isinstance(node, ast.ClassDef) and _length(node) > most
    )


def many_arguments(modules: Modules, most: int = MOST_ARGUMENTS) -> list[Named]:
    """Functions and methods that take over ``most`` arguments by position.

    Neither ``self`` nor keyword-only arguments count, nor the fields of dataclasses; the commands
    in the package `cli` are left out, since they have one parameter per option.
    """
    found = []
    for module, name, node in _all(modules):
        if isinstance(node, ast.ClassDef) or module.name.split(".")[1:2] == ["cli"]:
            continue
        n = len([each for each in parameters(node) if each.arg not in ("self", "cls")])
        if n > most:
            found.append(Named(f"{module.name}:{name}", n))
    return _descending(found)


def modules_by_folder(modules: Modules) -> list[Named]:
    """How many modules, its ``__init__`` included, each folder holds directly; most first."""
    count = Counter(module.path.rpartition("/")[0] for module in modules.values())
    return _descending(Named(folder, n) for folder, n in count.items())


def cycles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other in a circle (Tarjan's strongly connected
    components of more than one module); imports inside functions count as well.
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(arrows[name]):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            at = stack.index(name)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                found.append(sorted(group))

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 10 * len(arrows) + 100))
    try:
        for name in sorted(arrows):
            if name not in index:
                visit(name)
    finally:
        sys.setrecursionlimit(limit)
    return sorted(found)


def homonyms(modules: Modules) -> dict[str, list[str]]:
    """Names of public classes that more than one module defines at its top level, with where."""
    where: defaultdict[str, list[str]] = defaultdict(list)
    for module, name, node in _all(modules):
        if isinstance(node, ast.ClassDef) and "." not in name and not name.startswith("_"):
            where[name].append(module.name)
    return {name: sorted(places) for name, places in sorted(where.items()) if len(set(places)) > 1}


def count_words(modules: Modules, words: Sequence[str]) -> dict[str, WordCount]:
    """Where the words still stand; strings that are no docstrings are not read."""
    identifiers: Counter[str] = Counter()
    comments: list[str] = []
    docstrings: list[str] = []
    for module in modules.values():
        identifiers.update(_identifiers(module.tree))
        identifiers[module.name.rpartition(".")[2]] += 1
        comments += _comments(module.text)
        docstrings += [text for _, _, text in _docstrings(module) if text is not None]
    return {word: _count(word, identifiers, comments, docstrings) for word in words}


def loose_modules(modules: Modules, allowed: Iterable[str] = ALLOWED_ON_TOP) -> list[str]:
    """Modules directly in the package that belong in a subpackage."""
    on_top = (Path(module.path) for module in modules.values())
    stems = {path.stem for path in on_top if len(path.parts) == 2}
    return sorted(stems - set(allowed))


def same_docstrings(modules: Modules) -> list[str]:
    """Where a docstring begins "The same", which says nothing to who has not read another."""
    return [
        where
        for module in modules.values()
        for where, _, text in _docstrings(module)
        if text is not None and text.strip().startswith("The same")
    ]


def weak_docstrings(modules: Modules, fewest: int = FEWEST_WORDS) -> tuple[list[str], list[str]]:
    """Public functions, methods and classes without a docstring, and those whose docstring has
    fewer than ``fewest`` words.

    Public is what no underscore begins on the way to it; setters and overloads of typing share
    the docstring of another definition and are left out, and so is what a function defines inside.
    """
    without: list[str] = []
    short: list[str] = []
    for module in modules.values():
        for where, is_public, text in _docstrings(module):
            if is_public and text is None:
                without.append(where)
            elif is_public and text is not None and len(text.split()) < fewest:
                short.append(where)
    return without, short


def rooms(
    root: Path, modules: Modules, start: Place | None = None, *, with_parts: bool = True
) -> Rooms | None:
    """Through how many modules a value passes: by default the study file of the CLI's `launch`,
    as a path and then as a configuration.
    """
    place = start or default_start(modules)
    if place is None:
        return None
    takes_result = start is None
    layers = read_layers(root)
    return walk(modules, place, layers, with_parts=with_parts, takes_result=takes_result)


def table(figures: Figures) -> str:
    """The figures for a person to read."""
    lines = [f"{label:<46}{value}" for label, value in _summary(figures)]
    lines += ["", "old words (whole, by place; parts: names that hold it)"]
    header = ("word", "total", "code", "comments", "docstrings", "parts")
    lines.append("  " + "".join(f"{each:>12}" for each in header))
    for word, n in figures.words.items():
        row = (word, n.total, n.code, n.comments, n.docstrings, n.parts)
        lines.append("  " + "".join(f"{each:>12}" for each in row))
    for title, names in _details(figures):
        if names:
            lines += ["", f"{title} ({len(names)})", *(f"  {name}" for name in names)]
    return "\n".join(lines) + "\n"


def as_json(figures: Figures) -> str:
    """The figures for a program, with the totals of the words."""
    content = asdict(figures)
    for word, n in figures.words.items():
        content["words"][word]["total"] = n.total
    return json.dumps(content, indent=2) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the figures of one checkout."""
    parser = argparse.ArgumentParser(prog="python -m tests.house.measure")
    parser.add_argument("--json", action="store_true", help="for a program")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout to measure")
    parser.add_argument("--start", type=Place.parse, help="module:function:name for the rooms")
    chosen = parser.parse_args(arguments)
    try:
        figures = measure(chosen.root, chosen.start)
    except (OSError, SyntaxError, ValueError) as error:
        parser.error(str(error))
    sys.stdout.write(as_json(figures) if chosen.json else table(figures))


def _summary(figures: Figures) -> Iterator[tuple[str, object]]:
    lengths = figures.module_lengths
    yield "modules", figures.n_modules
    yield "lines", figures.n_lines
    yield "module length, p50", lengths.p50
    yield "module length, p90", lengths.p90
    yield "module length, longest", f"{lengths.longest.size} ({lengths.longest.name})"
    yield f"classes over {LONGEST_CLASS} lines", len(figures.long_classes)
    yield f"functions over {LONGEST_FUNCTION} lines", len(figures.long_functions)
    yield f"over {MOST_ARGUMENTS} positional arguments", len(figures.many_arguments)
    widest = figures.folders[0]
    yield "most modules in a folder", f"{widest.size} ({widest.name})"
    yield "import arrows", figures.n_arrows
    yield "import cycles", len(figures.cycles)
    yield "homonyms", len(figures.homonyms)
    yield "old words in all", sum(each.total for each in figures.words.values())
    yield "loose modules on top", len(figures.loose_modules)
    yield 'docstrings that begin "The same"', len(figures.same_docstrings)
    yield "public without a docstring", len(figures.without_docstring)
    yield f"public docstrings under {FEWEST_WORDS} words", len(figures.short_docstrings)
    for label, walked in (
        ("rooms, with attributes", figures.rooms),
        ("rooms, the whole value only", figures.rooms_of_whole),
    ):
        if walked is None:
            yield label, "the start is not there"
        else:
            yield label, f"{walked.n_rooms}, {walked.n_climbs} climbs (from {walked.start})"


def _details(figures: Figures) -> Iterator[tuple[str, list[str]]]:
    yield f"classes over {LONGEST_CLASS} lines", _listed(figures.long_classes)
    yield f"functions over {LONGEST_FUNCTION} lines", _listed(figures.long_functions)
    yield f"over {MOST_ARGUMENTS} positional arguments", _listed(figures.many_arguments)
    yield "modules by folder", _listed(figures.folders)
    yield "import cycles", [", ".join(group) for group in figures.cycles]
    yield "homonyms", [f"{name}: {', '.join(at)}" for name, at in figures.homonyms.items()]
    yield "loose modules on top", figures.loose_modules
    yield 'docstrings that begin "The same"', figures.same_docstrings
    yield "public without a docstring", figures.without_docstring
    yield f"public docstrings under {FEWEST_WORDS} words", figures.short_docstrings
    if figures.rooms is not None:
        yield "climbs of the walk", figures.rooms.climbs
        yield "rooms in order", list(dict.fromkeys(_modules_of(figures.rooms)))


def _modules_of(walked: Rooms) -> Iterator[str]:
    return (place.partition(":")[0] for place in walked.trace)


def _listed(found: Iterable[Named]) -> list[str]:
    return [f"{each.size:>5}  {each.name}" for each in found]


def _descending(found: Iterable[Named]) -> list[Named]:
    return sorted(found, key=lambda each: (-each.size, each.name))


def _length(node: Function | ast.ClassDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def _all(modules: Modules) -> Iterator[tuple[Module, str, Function | ast.ClassDef]]:
    for module in modules.values():
        for name, node in definitions(module.tree):
            yield module, name, node


def _docstrings(module: Module) -> Iterator[tuple[str, bool, str | None]]:
    """Where, whether it is a public function or class, and the docstring if there is one."""
    yield module.name, False, ast.get_docstring(module.tree)
    nodes = dict(definitions(module.tree))
    for name, node in nodes.items():
        parts = name.split(".")
        above = (nodes[".".join(parts[:i])] for i in range(1, len(parts)))
        is_public = (
            not any(part.startswith("_") for part in parts)
            and all(isinstance(each, ast.ClassDef) for each in above)
            and not decorators(node) & {"setter", "deleter", "overload"}
        )
        yield f"{module.name}:{name}", is_public, ast.get_docstring(node)


def _comments(text: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]


def _identifiers(tree: ast.AST) -> Iterator[str]:
    """Every name in the code, as often as it stands there; names inside f-strings included."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.ClassDef(name=name):
                yield name
            case ast.keyword(arg=str(name)) | ast.ExceptHandler(name=str(name)):
                yield name
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name
            case ast.MatchClass(kwd_attrs=names) | ast.Global(names=names):
                yield from names
            case ast.Nonlocal(names=names):
                yield from names
            case ast.alias(name=name, asname=other):
                yield from name.split(".")
                if other is not None:
                    yield other
            case ast.ImportFrom(module=str(name)):
                yield from name.split(".")


def _count(
    word: str, identifiers: Counter[str], comments: list[str], docstrings: list[str]
) -> WordCount:
    whole = re.compile(rf"\b{re.escape(word)}\b", re.IGNORECASE)
    spelled = f"_{_spelled(word)}_"
    parts = {
        name: n
        for name, n in identifiers.items()
        if spelled in f"_{_spelled(name)}_" or name.strip("_").lower() == word.lower()
    }
    return WordCount(
        code=sum(n for name, n in parts.items() if name.strip("_").lower() == word.lower()),
        comments=sum(len(whole.findall(text)) for text in comments),
        docstrings=sum(len(whole.findall(text)) for text in docstrings),
        parts=sum(parts.values()),
        names=sorted(parts),
    )


def _spelled(name: str) -> str:
    """The words of an identifier in lower case with underscores between: StudyLab, study_lab."""
    return "_".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)).lower()


if __name__ == "__main__":
    main()
