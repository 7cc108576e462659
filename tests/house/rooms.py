"""Through how many modules a value passes: a simple static walk along the calls.

The walk starts at a name of one function and goes wherever that name, or an attribute of it, is
an argument of a call to a function or class of the package; it goes on there with the parameter.
What is stored on ``self``, or as a field of a dataclass, is followed through the methods of that
class.

What it can't see:

- values made of the value: ``space = space_of(config)`` ends there.  One exception, for the
  default start only: the first result in that function of a call that was given the value stands
  for it too (the path of a study file becomes its configuration);
- calls on objects whose class is not written beside their name: neither ``self`` nor an annotated
  parameter, nor a local name made by calling the class in the same function;
- values read back from an object, such as ``store.config``, except on ``self``;
- values inside tuples, lists and dictionaries, calls of functions that were passed as values
  (but for `functools.partial`), and the methods of the value itself;
- control flow: it takes every branch, and a name that is bound again still counts.

So it is a lower bound for the modules that know of the value, and an upper bound for one run.  A
smaller number after a change may also mean that the walk lost the value: read the trace.
"""

import ast
import configparser
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tests.house.source import (
    PACKAGE,
    Function,
    Modules,
    bindings,
    decorators,
    definitions,
    outside_functions,
    parameters,
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the value is: a name of a function, or an attribute of the instances of a class."""

    module: str
    owner: str  # "function", "Class.method", or "Class" for an attribute
    name: str

    @classmethod
    def parse(cls, text: str) -> "Place":
        """The place that "module:function:name" says; the package's name may be left out."""
        parts = text.split(":")
        if len(parts) != 3:
            raise ValueError(f"a start is module:function:name, found {text!r}")
        module, owner, name = parts
        if module != PACKAGE and not module.startswith(f"{PACKAGE}."):
            module = f"{PACKAGE}.{module}"
        return cls(module, owner, name)

    def __str__(self) -> str:
        return f"{self.module}:{self.owner}:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """The walk of one value."""

    start: str
    with_parts: bool  # whether attributes of the value count as the value
    n_rooms: int  # distinct modules
    n_climbs: int  # steps to a module nearer the top than the one before
    n_places: int  # distinct functions, and attributes of classes
    trace: list[str]  # places in the order of the walk
    climbs: list[str]  # "below -> above"


def read_layers(root: Path) -> list[list[str]]:
    """The layers of ``root``/.importlinter from the top, each with the packages side by side."""
    parser = configparser.ConfigParser()
    parser.read(root / ".importlinter", encoding="utf-8")
    for name in parser.sections():
        section = parser[name]
        if section.get("type") == "layers":
            containers = section.get("containers", "").split()
            prefix = f"{containers[0]}." if containers else ""
            lines = section["layers"].strip().splitlines()
            cleaned = (line.replace("|", " ").replace(":", " ") for line in lines)
            return [[prefix + each.strip("()") for each in line.split()] for line in cleaned]
    return []


def height(module: str, layers: list[list[str]]) -> int | None:
    """How far the module's layer is from the top, which is 0; None for a module in no layer."""
    own = [
        (len(name), depth)
        for depth, names in enumerate(layers)
        for name in names
        if module == name or module.startswith(f"{name}.")
    ]
    return max(own)[1] if own else None


def default_start(modules: Modules) -> Place | None:
    """The study file among the parameters of the CLI's `launch`; None if there is no such."""
    for name, module in modules.items():
        if not name.startswith(f"{PACKAGE}.cli"):
            continue
        for node in module.tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == "launch":
                known = parameters(node)
                if known:
                    return Place(name, "launch", known[0].arg)
    return None


def walk(
    modules: Modules,
    start: Place,
    layers: list[list[str]],
    *,
    with_parts: bool = True,
    takes_result: bool = False,
) -> Rooms:
    """Follows the value that ``start`` names; raises `ValueError` if there is no such place.

    ``with_parts``: attributes of the value count as the value.  ``takes_result``: so does, in the
    function of the start, the first result of a call that was given it.
    """
    steps = _Walk(modules, with_parts=with_parts)
    node = steps.definition(start.module, start.owner)
    if node is None or start.name not in _names(node):
        raise ValueError(f"{start}: there is no such name, or no such function")
    steps.visit(start, takes_result=takes_result)
    order = [place.module for place in steps.trace]
    climbs = [
        f"{before} -> {after}"
        for before, after in pairwise(order)
        if _is_climb(height(before, layers), height(after, layers))
    ]
    return Rooms(
        start=str(start),
        with_parts=with_parts,
        n_rooms=len(set(order)),
        n_climbs=len(climbs),
        n_places=len(steps.trace),
        trace=[str(place) for place in steps.trace],
        climbs=climbs,
    )


def _is_climb(before: int | None, after: int | None) -> bool:
    return before is not None and after is not None and after < before


@dataclass(slots=True)
class _Scope:
    """What the names in one function mean, and which of them are the value."""

    module: str
    owner_class: str | None
    names: dict[str, str]  # local name to absolute dotted name
    classes: dict[str, str]  # local name to the absolute name of its class
    with_parts: bool
    held: set[str] = field(default_factory=set)  # names, and "self.attribute"

    def is_value(self, node: ast.expr) -> bool:
        """Whether the expression is the value, or an attribute of it where those count."""
        while True:
            dotted = _dotted(node)
            if dotted is not None and dotted in self.held:
                return True
            is_part = isinstance(node, ast.Attribute) and self.with_parts
            if is_part or isinstance(node, ast.Starred | ast.Await):
                assert isinstance(node, ast.Attribute | ast.Starred | ast.Await)
                node = node.value
            else:
                return False


class _Walk:
    """The walk itself, depth first and in the order of the source."""

    def __init__(self, modules: Modules, *, with_parts: bool) -> None:
        self._modules = modules
        self._with_parts = with_parts
        self._defined = {name: dict(definitions(module.tree)) for name, module in modules.items()}
        self._bound = {
            name: bindings(module, outside_functions(module.tree))
            for name, module in modules.items()
        }
        self._seen: set[Place] = set()
        self.trace: list[Place] = []

    def definition(self, module: str, owner: str) -> Function | ast.ClassDef | None:
        """The function or class of this qualified name in the module."""
        return self._defined.get(module, {}).get(owner)

    def visit(self, place: Place, *, takes_result: bool = False) -> None:
        """Goes on from a place that the value reaches, once."""
        node = self.definition(place.module, place.owner)
        if node is None or place in self._seen:
            return
        self._seen.add(place)
        self.trace.append(place)
        if isinstance(node, ast.ClassDef):
            for each in node.body:
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                    owner = f"{place.owner}.{each.name}"
                    self._follow(each, self._scope(place.module, owner, f"self.{place.name}"))
        else:
            scope = self._scope(place.module, place.owner, place.name)
            self._follow(node, scope, takes_result=takes_result)

    def _scope(self, module: str, owner: str, held: str) -> _Scope:
        node = self._defined[module][owner]
        assert not isinstance(node, ast.ClassDef)
        defined = self._defined[module]
        names = {name: f"{module}.{name}" for name in defined if "." not in name}
        names |= self._bound[module] | bindings(self._modules[module], ast.walk(node))
        above = owner.rpartition(".")[0]
        names |= {
            name.rpartition(".")[2]: f"{module}.{name}"
            for name in defined
            if name.rpartition(".")[0] == owner
        }
        is_method = isinstance(self.definition(module, above), ast.ClassDef)
        scope = _Scope(module, above if is_method else None, names, {}, self._with_parts, {held})
        for each in [*parameters(node), *node.args.kwonlyargs]:
            written = each.annotation
            if isinstance(written, ast.Constant) and isinstance(written.value, str):
                scope.classes[each.arg] = names.get(written.value, written.value)
            elif written is not None and (dotted := _dotted(written)) is not None:
                scope.classes[each.arg] = _absolute(dotted, names)
        return scope

    def _follow(self, node: Function, scope: _Scope, *, takes_result: bool = False) -> None:
        for each in _in_order(node):
            if isinstance(each, ast.Assign | ast.AnnAssign):
                takes_result = self._assign(each, scope, takes_result=takes_result)
            elif isinstance(each, ast.Call):
                self._call(each, scope)

    def _assign(
        self, node: ast.Assign | ast.AnnAssign, scope: _Scope, *, takes_result: bool
    ) -> bool:
        """Another name for the value; whether the first result of a call is still to come."""
        if node.value is None:
            return takes_result
        targets: list[ast.expr] = (
            [node.target] if isinstance(node, ast.AnnAssign) else node.targets
        )
        for target, value in _pairs(targets, node.value):
            name = _dotted(target)
            if name is None:
                continue
            if scope.is_value(value):
                self._hold(name, scope)
            elif isinstance(value, ast.Call):
                given = [*value.args, *(each.value for each in value.keywords)]
                if takes_result and any(scope.is_value(each) for each in given):
                    takes_result = False
                    self._hold(name, scope)
                called = _dotted(value.func)
                if called is not None:
                    scope.classes[name] = _absolute(called, scope.names)
        return takes_result

    def _hold(self, name: str, scope: _Scope) -> None:
        scope.held.add(name)
        owner, _, attribute = name.rpartition(".")
        if owner == "self" and scope.owner_class is not None:
            self.visit(Place(scope.module, scope.owner_class, attribute))

    def _call(self, node: ast.Call, scope: _Scope) -> None:
        called, positional = node.func, node.args
        if _dotted(called) in ("functools.partial", "partial") and positional:
            called, positional = positional[0], positional[1:]
        given: list[tuple[int | str | None, ast.expr]] = [*enumerate(positional)]
        given += [(each.arg, each.value) for each in node.keywords]
        given = [(key, value) for key, value in given if scope.is_value(value)]
        target = self._called(called, scope) if given else None
        if target is None:
            return
        module, owner, skip = target
        for key, _ in given:
            for place in self._receivers(module, owner, skip, key):
                self.visit(place)

    def _called(self, node: ast.expr, scope: _Scope) -> tuple[str, str, int] | None:
        """Module and qualified name of what is called, and how many parameters are bound."""
        dotted = _dotted(node)
        if dotted is None:
            return None
        owner, _, last = dotted.rpartition(".")
        if owner in ("self", "cls") and scope.owner_class is not None:
            return self._method(scope.module, scope.owner_class, last, is_bound=True)
        if owner in scope.classes:
            found = self._resolve(scope.classes[owner])
            return None if found is None else self._method(*found, last, is_bound=True)
        found = self._resolve(_absolute(dotted, scope.names))
        if found is None:
            return None
        module, name = found
        above, _, last = name.rpartition(".")
        if isinstance(self.definition(module, above), ast.ClassDef):
            return self._method(module, above, last, is_bound=False)
        return module, name, 0

    def _method(
        self, module: str, owner: str, name: str, *, is_bound: bool
    ) -> tuple[str, str, int] | None:
        for at, above in self._bases(module, owner):
            node = self.definition(at, f"{above}.{name}")
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                kinds = decorators(node)
                skip = 0 if "staticmethod" in kinds else int(is_bound or "classmethod" in kinds)
                return at, f"{above}.{name}", skip
        return None

    def _bases(self, module: str, owner: str) -> Iterator[tuple[str, str]]:
        """The class and what it inherits from in the package, nearest first."""
        node = self.definition(module, owner)
        if not isinstance(node, ast.ClassDef):
            return
        yield module, owner
        for base in node.bases:
            dotted = _dotted(base.value if isinstance(base, ast.Subscript) else base)
            if dotted is not None:
                found = self._resolve(f"{module}.{dotted}")
                if found is not None and found != (module, owner):
                    yield from self._bases(*found)

    def _resolve(self, dotted: str, hops: int = 8) -> tuple[str, str] | None:
        """Module and qualified name of a definition, through re-exports."""
        module = dotted
        while module and module not in self._modules:
            module = module.rpartition(".")[0]
        name = dotted[len(module) + 1 :]
        if not module or not name or not hops:
            return None
        if name in self._defined[module]:
            return module, name
        first, _, rest = name.partition(".")
        onward = self._bound[module].get(first)
        if onward is None or onward == f"{module}.{first}":
            return None
        return self._resolve(f"{onward}.{rest}" if rest else onward, hops - 1)

    def _receivers(
        self, module: str, owner: str, skip: int, key: int | str | None
    ) -> Iterator[Place]:
        """Where an argument arrives: by its position, its keyword, or (None) as ``**``."""
        node = self.definition(module, owner)
        if isinstance(node, ast.ClassDef):
            own = self._method(module, owner, "__init__", is_bound=True)
            if own is not None:
                yield from self._receivers(*own, key)
                return
            fields = self._fields(module, owner)
            name = key if isinstance(key, str) else None
            if isinstance(key, int) and key < len(fields):
                name = fields[key]
            yield Place(module, owner, name if name in fields else "(unknown)")
        elif node is not None:
            named = [each.arg for each in parameters(node)]
            keywords = {*named, *(each.arg for each in node.args.kwonlyargs)}
            rest = node.args.vararg if isinstance(key, int) else node.args.kwarg
            if isinstance(key, int) and key + skip < len(named):
                yield Place(module, owner, named[key + skip])
            elif isinstance(key, str) and key in keywords:
                yield Place(module, owner, key)
            else:
                yield Place(module, owner, "(unknown)" if rest is None else rest.arg)

    def _fields(self, module: str, owner: str) -> list[str]:
        found: list[str] = []
        for at, above in reversed(list(self._bases(module, owner))):
            node = self.definition(at, above)
            assert isinstance(node, ast.ClassDef)
            for each in node.body:
                if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                    found.append(each.target.id)
        return list(dict.fromkeys(found))


def _dotted(node: ast.expr) -> str | None:
    """The text "a.b.c" of a name with attributes; None for any other expression."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        above = _dotted(node.value)
        return None if above is None else f"{above}.{node.attr}"
    return None


def _names(node: ast.AST) -> set[str]:
    """The parameters, names and attributes that stand below the node."""
    found: set[str] = set()
    for each in ast.walk(node):
        match each:
            case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name):
                found.add(name)
    return found


def _absolute(dotted: str, names: dict[str, str]) -> str:
    first, _, rest = dotted.partition(".")
    known = names.get(first, first)
    return f"{known}.{rest}" if rest else known


def _in_order(node: ast.AST) -> Iterator[ast.AST]:
    """All below the node as it is evaluated, roughly: parts first, in the order of the source."""
    for child in ast.iter_child_nodes(node):
        yield from _in_order(child)
        yield child


def _pairs(targets: list[ast.expr], value: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    for target in targets:
        if (
            isinstance(target, ast.Tuple)
            and isinstance(value, ast.Tuple)
            and len(target.elts) == len(value.elts)
        ):
            yield from zip(target.elts, value.elts, strict=True)
        else:
            yield target, value
