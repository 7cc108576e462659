"""Markdown of the reference pages, made from what the code says of itself.

The keys of a study file come from its pydantic types and are explained by the comments of the
whole study file in docs/study-file.md; commands and options come from the command line itself,
tables and columns from the database's module and its comments.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import typer
import typer.main
from pydantic import BaseModel

from s3search.study.database import tables as database
from s3search.study.file.config import StudyConfig

STUDY_FILE = Path(__file__).parents[1] / "study-file.md"

_WORDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "array": "list",
    "null": "",
    "object": "table",
}
_LIMITS = {
    "minimum": "from {}",
    "exclusiveMinimum": "above {}",
    "maximum": "to {}",
    "exclusiveMaximum": "below {}",
    "minLength": "of {} letters at least",
    "maxLength": "{} at most",
    "minItems": "of {} or more",
}


class Undocumented(ValueError):
    """The code has something that nothing explains."""


def study_keys(page: str | None = None) -> str:
    """A table for each table of a study file: key, what it may be, its default, what it means."""
    meanings = comments_of(page or STUDY_FILE.read_text(encoding="utf-8"))
    schema = StudyConfig.model_json_schema()
    parts = []
    for name, field in StudyConfig.model_fields.items():
        own = table_of(field.annotation)
        defined = schema["$defs"][own.__name__]
        parts.append(f"## `[{name}]`\n\n{_sentence(own.__doc__, drop=f'``[{name}]``: ')}")
        if field.is_required():
            parts[-1] += " A study file must have this table."
        if own.model_config.get("extra") == "allow":
            parts[-1] += " Keys that are not listed go to what the table names, as its arguments."
        rows = []
        for key, described in defined["properties"].items():
            meaning = meanings.get(f"{name}.{key}")
            if not meaning:
                raise Undocumented(f"docs/study-file.md says nothing beside {name}.{key}")
            is_required = key in defined.get("required", ())
            default = "" if is_required else _default(described)
            rows.append((f"`{key}`", _value(described, schema["$defs"]), default, meaning))
        parts.append(_table(("key", "value", "default", "meaning"), rows))
    return "\n\n".join(parts)


def table_of(annotation: Any) -> type[BaseModel]:
    """The type of a table, which a study may be able to do without."""
    (own,) = (each for each in get_args(annotation) or (annotation,) if each is not NoneType)
    assert issubclass(own, BaseModel)
    return own


def comments_of(page: str) -> dict[str, str]:
    """The comment beside each key of the page's study file, by ``table.key``."""
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    found: dict[str, str] = {}
    table, key = "", ""
    for line in block.splitlines():
        if heading := re.match(r"\[([\w.]+)\]", line):
            table = key = heading[1]
            found.setdefault(key, "")
        elif optional := re.match(r"# optional (\w+): (.*)", line):
            key = f"{table}.{optional[1]}"
            found[key] = optional[2]
        elif assigned := re.match(r"(\w+) = [^#]*(?:# (.*))?", line):
            key = f"{table}.{assigned[1]}"
            found[key] = (assigned[2] or "").removeprefix("optional: ")
        elif more := re.match(r"\s*# (.*)", line):
            found[key] = f"{found[key]} {more[1]}"
    return found


def _value(described: Mapping[str, Any], defined: Mapping[str, Any]) -> str:
    """What a key may be, in words."""
    if "$ref" in described:
        return _value(defined[described["$ref"].rsplit("/", 1)[1]], defined)
    if "enum" in described:
        return ", ".join(f'`"{each}"`' for each in described["enum"])
    if "const" in described:
        return f'`"{described["const"]}"`'
    if "properties" in described:
        return _WORDS["object"]
    if "anyOf" in described:
        words = [_value(each, defined) for each in described["anyOf"]]
        return " or ".join(word for word in words if word)
    words = _WORDS[described["type"]]
    if described["type"] == "array":
        words += f" of: {_value(described['items'], defined)}"
    limits = [form.format(_count(described[k])) for k, form in _LIMITS.items() if k in described]
    return f"{words} {', '.join(limits)}".strip()


def _count(limit: float) -> str:
    return f"2^{int(limit).bit_length() - 1}" if limit > 2**53 else f"{limit:,}"


def _default(described: Mapping[str, Any]) -> str:
    default = described.get("default")
    if default is None:
        return "none"
    text = str(default).lower() if isinstance(default, bool) else str(default)
    if isinstance(default, list):
        text = ", ".join(default) or "[]"
    return f"`{text}`"


def command_line(app: typer.Typer) -> str:
    """A section for each command: what it does, how it is called, its arguments and options."""
    root = typer.main.get_command(app)
    return "\n\n".join(_command(words, each) for words, each in commands_of(root))


def commands_of(root: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, by the words that name it, in the help's order."""
    for name, command in root.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from commands_of(command, (*words, name))
        else:
            yield (*words, name), command


def _command(words: tuple[str, ...], command: Any) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    shown = " ".join(_argument(each) for each in arguments)
    usage = " ".join(part for part in ("s3search", *words, shown, "[OPTIONS]") if part)
    parts = [f"## {' '.join(words)}", _sentence(command.help), f"```text\n{usage}\n```"]
    rows = [(f"`{each.metavar or each.name}`", each.help or "", "") for each in arguments]
    rows += [(_option(each), each.help or "", _option_default(each)) for each in options]
    if rows:
        parts.append(_table(("argument, option", "meaning", "default"), rows))
    return "\n\n".join(parts)


def _argument(argument: Any) -> str:
    name = (argument.metavar or argument.name.upper()) + ("..." if argument.nargs == -1 else "")
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _option(option: Any) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    return f"{names} (several)" if option.multiple else names


def _option_default(option: Any) -> str:
    if option.required:
        return "must be given"
    default = option.default
    if callable(default) or default in (None, False, (), []):
        return ""
    return "yes" if default is True else f"`{getattr(default, 'value', default)}`"


def database_tables() -> str:
    """A section for each of our tables, with its columns."""
    said = remarks_of(Path(database.__file__).read_text(encoding="utf-8"))
    parts = []
    for table in database.METADATA.tables.values():
        parts.append(f"## `{table.name}`\n\n{_upper(said.get((table.name, ''), ''))}".strip())
        rows = []
        for column in table.columns:
            kind = str(column.type).lower()
            for key in column.foreign_keys:
                kind += f", of `{key.column.table.name}`"
            unset = "" if column.nullable is False else "may be missing"
            remark = said.get((table.name, column.name), "")
            rows.append((f"`{column.name}`", kind, "; ".join(filter(None, (remark, unset)))))
        parts.append(_table(("column", "type", "remark"), rows))
    return "\n\n".join(parts)


def remarks_of(source: str) -> dict[tuple[str, str], str]:
    """The comment beside each table ("" for the column) and column of the database's module."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    found = {}
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            continue
        if not node.value.args:
            continue
        name, *columns = node.value.args
        found[_text(name), ""] = comments.get(name.lineno, "")
        for column in columns:
            if isinstance(column, ast.Call) and column.args:
                line = column.end_lineno or column.lineno
                found[_text(name), _text(column.args[0])] = comments.get(line, "")
    return found


def _text(node: ast.expr) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else ""


def with_navigation(index: str) -> str:
    """The index page, each of its sections also a part of the site's navigation: the pages that
    its list names, in their order.
    """
    parts = []
    for section in re.split(r"^(?=## )", index, flags=re.MULTILINE)[1:]:
        links = re.findall(r"\[([^\]]+)\]\((?!https?:)([^)#]+)\.md\)", section)
        pages = [f"{title} <{page}>" for title, page in links]
        lines = ["```{toctree}", ":hidden:", f":caption: {section.splitlines()[0][3:]}", ""]
        parts.append("\n".join([*lines, *pages, "```"]))
    return "\n\n".join([index, *parts])


def _sentence(text: str | None, drop: str = "") -> str:
    return _upper(" ".join((text or "").split()).removeprefix(drop))


def _upper(text: str) -> str:
    text = re.sub(r"``(.*?)``", r"`\1`", text)
    return text[:1].upper() + text[1:]


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    escaped = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows]
    heads = list(heads)
    return "\n".join(
        [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {row} |" for row in escaped)]
    )
