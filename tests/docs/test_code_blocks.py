"""Every block of code in the documentation is run, read or at least looked up."""

import ast
import importlib
import importlib.util
import inspect
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer.main

from s3search.cli import app
from s3search.formats.exporters import ExportRequest, export_schedule
from s3search.processes import edm
from s3search.schedules import published
from s3search.study.file.config import StudyConfig, parse_config
from tests.docs.pages import ROOT, RUN_APART, Block, blocks, blocks_of, pages, run_python

COMMANDS = typer.main.get_command(app)
PYTHON = list(blocks_of("python"))
NOT_RUN = [block for block in PYTHON if block.marked("not run") is not None]
PARTS = [block for block in PYTHON if block.marked("part of") is not None]
TOML = list(blocks_of("toml"))
SHELLS = ("bash", "sh", "")
ENDS = {"&", "&&", "|", "||", ";"}  # of one command in a line of the shell

SMALLEST: Mapping[str, Mapping[str, Any]] = {
    "study": {"name": "page"},
    "model": {"loader": "digits"},
    "space": {"nfe": [5]},
    "metric": {"features": "digits"},
    "reference": {"images": "digits"},
    "search": {"evaluations": 1},
}
"""What a study file must have, for pages that show some of its tables."""


def where(block: Block) -> str:
    """The name of a block's test."""
    return block.where


def test_there_are_blocks_of_every_kind() -> None:
    assert len(PYTHON) > 15
    assert len(TOML) > 15
    assert len(list(shell_commands())) > 60
    assert {block.language for page in pages() for block in blocks(page)} <= {
        *("python", "toml", *SHELLS, "json", "text", "yaml", "sql", "nginx", "ini"),
        *("{study-keys}", "{command-line}", "{database-tables}", "{eval-rst}"),
    }


@pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "page",
    sorted({block.page for block in PYTHON if block not in [*NOT_RUN, *PARTS]} - RUN_APART),
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_the_python_of_a_page_runs_from_its_top(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_python(page)


@pytest.mark.parametrize("block", PARTS, ids=where)
def test_a_part_of_a_file_that_is_tested_is_what_stands_there(block: Block) -> None:
    assert block.code.strip() in (ROOT / str(block.marked("part of"))).read_text(encoding="utf-8")


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of an export, for pages that import them."""
    schedule = published.dpmpp_2m(edm(), nfe=4)
    wanted = {"diffusers": tmp_path / "folder", "k-diffusion": tmp_path / "my_sampler.py"}
    for name, output in wanted.items():
        export_schedule(name, ExportRequest(schedule=schedule, output=output))
    monkeypatch.syspath_prepend(str(tmp_path / "folder"))
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("exported")
@pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning")
@pytest.mark.parametrize("block", NOT_RUN, ids=where)
def test_what_is_not_run_says_why_and_names_what_there_is(block: Block) -> None:
    assert len(block.marked("not run") or "") > 10, "say why it is not run"
    tree = ast.parse(block.code, block.where)
    names = imported(tree)
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        function = looked_up(call.func, names)
        if function is None:
            continue
        given = {word.arg: None for word in call.keywords if word.arg is not None}
        inspect.signature(function).bind_partial(*call.args, **given)
        if function.__module__.startswith("s3search"):  # not as keys that go to a loader
            assert set(given) <= set(inspect.signature(function).parameters)


def imported(tree: ast.AST) -> dict[str, Any]:
    """What a block imports, by the names that it gives it."""
    found: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                module = importlib.import_module(each.name)
                top = importlib.import_module(each.name.partition(".")[0])
                found[each.asname or top.__name__] = module if each.asname else top
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            found |= {each.asname or each.name: getattr(module, each.name) for each in node.names}
    return found


def looked_up(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """What a dotted name is, if it begins with an imported one; an error if it is not there."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = looked_up(node.value, names)
        return None if owner is None else getattr(owner, node.attr)
    return None


@pytest.mark.parametrize("block", TOML, ids=where)
def test_a_block_of_toml_is_part_of_a_study_file(block: Block) -> None:
    data = tomllib.loads(block.code)
    if not set(data) <= set(StudyConfig.model_fields):
        assert block.marked("part of") is not None, f"say what file or table: {sorted(data)}"
        table = block.marked("part of")
        data = {table: data} if table in StudyConfig.model_fields else {}
    if "study" in data:
        parse_config(data)
        return
    tables = {
        name: {**SMALLEST.get(name, {}), **data.get(name, {})} for name in {*SMALLEST, *data}
    }
    if {"protocol", "score"} & data.get("metric", {}).keys():  # which say what the features are
        del tables["metric"]["features"]
    parse_config(tables)


def shell_commands() -> Iterator[tuple[str, list[str]]]:
    """Where it stands, and the words of every command of the shell; of alternatives, a|b, the
    first, and three dots for arguments that nobody wrote.
    """
    for block in (block for language in SHELLS for block in blocks_of(language)):
        line = block.line
        for text in re.split(r"(?<!\\)\n", block.code):
            one = re.sub(r"(?<=\w)\|[\w|]+", " ...", text)
            shell = shlex.shlex(one, posix=True, punctuation_chars="|&;")
            shell.whitespace_split = True
            words = [] if "<<" in text else list(shell)
            for is_end, each in itertools.groupby(words, key=lambda word: word in ENDS):
                if not is_end:
                    yield f"{block.page.relative_to(ROOT)}:{line}", list(each)
            line += text.count("\n") + 1


SHELL = list(shell_commands())
OURS = [(place, words[1:]) for place, words in SHELL if words[0] == "s3search"]
OTHERS = [(place, words) for place, words in SHELL if words[0] != "s3search"]


def test_every_command_of_a_block_is_one_that_there_is() -> None:
    wrong = [f"{place}: {' '.join(words)}: {e}" for place, words in OURS if (e := refused(words))]
    assert wrong == []


def refused(words: list[str]) -> str | None:
    """Why the command line would refuse these words before it does anything; None if it would
    not.
    """
    command, path = COMMANDS, ["s3search"]
    rest = list(words)
    while hasattr(command, "commands"):
        if not rest or rest[0].startswith("-"):
            return (
                None
                if set(rest) <= {"-h", "--help", "--version", "--install-completion"}
                else path[-1]
            )
        if rest[0] not in command.commands:
            return f"there is no {' '.join([*path, rest[0]])}"
        path.append(rest[0])
        command = command.commands[rest.pop(0)]
    if "..." in rest:
        return None
    context = command.context_class(command, info_name=" ".join(path))
    try:
        command.parse_args(context, rest)
    except Exception as error:
        return str(error) or repr(error)
    return None


def test_commands_in_a_sentence_are_those_that_there_are() -> None:
    found, wrong = 0, []
    for page in pages():
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for said in re.findall(r"`s3search ([a-z][^`]*)`", text):
            found += 1
            words = [word for word in said.replace("\n", " ").split() if word != "..."]
            command, path = resolved(words)
            if path and hasattr(command, "commands") and not path[0].startswith("-"):
                wrong.append(f"{page.name}: {said}")
            known = {option for each in command.params for option in each.opts} | {"--help", "-h"}
            asked = {word.split("=")[0] for word in path if re.match(r"--?[a-z]", word)}
            wrong += [f"{page.name}: {said}: no {option}" for option in asked - known]
    assert wrong == []
    assert found > 50


def resolved(words: list[str]) -> tuple[Any, list[str]]:
    """The command that these words name as the command line finds it, and the words after it."""
    command, rest = COMMANDS, words
    while hasattr(command, "commands") and rest:
        context = command.context_class(command, resilient_parsing=True)
        _, found, after = command.resolve_command(context, rest)
        if found is None:
            break
        command, rest = found, after
    return command, rest


def test_programs_in_a_sentence_are_those_that_there_are() -> None:
    said = {
        (page.name, module)
        for page in pages()
        for module in re.findall(r"python -m (tests[\w.]+)", page.read_text(encoding="utf-8"))
    }
    assert len(said) > 10
    assert [each for each in said if importlib.util.find_spec(each[1]) is None] == []


def test_modules_scripts_targets_and_extras_of_a_block_are_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    looked_at = 0
    for place, words in OTHERS:
        looked_at += 1
        match [word for word in words if "=" not in word.split("/")[0] or word[0] == "'"]:
            case ["python", "-m", module, *_] if module.startswith(("tests", "s3search")):
                assert importlib.util.find_spec(module) is not None, f"{place}: {module}"
            case ["python", script, *_] if script.endswith(".py"):
                assert (ROOT / script).is_file(), f"{place}: {script}"
            case ["make", target, *_]:
                assert target in targets, f"{place}: {target}"
            case ["pip", "install", *what]:
                asked = re.findall(r"^\.\[(.*)\]", " ".join(what))
                extras = {each for group in asked for each in group.split(",")}
                assert extras <= set(project["optional-dependencies"]), f"{place}: {extras}"
            case _:
                looked_at -= 1
    assert looked_at > 10
