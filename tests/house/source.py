"""The source of the package, parsed and never imported: its modules, and what names mean."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "s3search"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Module:
    """One file of the package, by its dotted name."""

    name: str
    path: str  # from the root of the checkout
    text: str
    tree: ast.Module
    is_package: bool

    @property
    def n_lines(self) -> int:
        """Lines of the file, blank ones and comments included."""
        return len(self.text.splitlines())


Modules = Mapping[str, Module]


def read_modules(root: Path, package: str = PACKAGE) -> dict[str, Module]:
    """All modules below ``root``/``package`` by dotted name, without the migrations' versions."""
    found: dict[str, Module] = {}
    for path in sorted((root / package).rglob("*.py")):
        relative = path.relative_to(root)
        if "migrations/versions" in relative.as_posix():
            continue
        parts = relative.with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text, filename=str(path))
        found[name] = Module(name, relative.as_posix(), text, tree, is_package)
    if not found:
        raise FileNotFoundError(f"{root / package}: no Python module is there")
    return found


def imported_from(module: Module, node: ast.ImportFrom) -> str:
    """The absolute name of the module that a ``from`` import names."""
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    parts = parts[: len(parts) - node.level + (1 if module.is_package else 0)]
    return ".".join([*parts, *([node.module] if node.module else [])])


def bindings(module: Module, nodes: Iterable[ast.AST]) -> dict[str, str]:
    """What the import statements among ``nodes`` bind: local name to absolute dotted name."""
    found: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            origin = imported_from(module, node)
            found |= {each.asname or each.name: f"{origin}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Import):
            for each in node.names:
                top = each.name.partition(".")[0]
                found[each.asname or top] = each.name if each.asname else top
    return found


def imports_of(module: Module, modules: Modules) -> set[str]:
    """The other modules of the package that this one imports, wherever the statement stands."""
    found: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names if each.name in modules}
        elif isinstance(node, ast.ImportFrom):
            origin = imported_from(module, node)
            names = {f"{origin}.{each.name}" for each in node.names}
            submodules = {name for name in names if name in modules}
            found |= submodules
            if origin in modules and submodules != names:
                found.add(origin)
    return found - {module.name}


def definitions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Every function and class below ``tree`` with its qualified name, nested ones included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield prefix + node.name, node
            yield from definitions(node, f"{prefix}{node.name}.")
        else:
            yield from definitions(node, prefix)


def outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes below ``tree`` that are in no function."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from outside_functions(node)


def parameters(node: Function) -> list[ast.arg]:
    """The parameters that may be given by position, in order."""
    return [*node.args.posonlyargs, *node.args.args]


def decorators(node: Function | ast.ClassDef) -> set[str]:
    """The last names of the decorators: "property", "dataclass", "setter"."""
    found: set[str] = set()
    for each in node.decorator_list:
        called = each.func if isinstance(each, ast.Call) else each
        if isinstance(called, ast.Attribute):
            found.add(called.attr)
        elif isinstance(called, ast.Name):
            found.add(called.id)
    return found
