"""The documentation names every command and every key, and its examples run."""

import importlib
import inspect
import re
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel

import s3search
from docs.site.generate import table_of
from s3search.cli import app
from s3search.evaluation.plugins import FEATURES, REFERENCES
from s3search.metrics.references import ImageSource
from s3search.processes import vp_linear
from s3search.rules import level, rules
from s3search.search.space import SpaceConfig
from s3search.study.file.config import StudyConfig
from s3search.study.file.protocols import PROTOCOLS
from tests.docs.pages import blocks, pages, run_python
from tests.support.helpers import exact_trajectory, max_abs

ROOT = Path(s3search.__file__).parents[1]
README = ROOT / "README.md"
SOLVERS = ROOT / "docs" / "solvers.md"
OWN_SOLVER = ROOT / "docs" / "how-to" / "own-solver.md"
METRICS = ROOT / "docs" / "metrics.md"
PYTHON = ROOT / "docs" / "python.md"
COMMANDS = ROOT / "docs" / "commands.md"
STUDY_FILE = ROOT / "docs" / "study-file.md"
LAYERS = ROOT / "docs" / "layers.md"
TRANSFER = ROOT / "docs" / "transfer.md"
SPACES = ROOT / "search_spaces" / "README.md"


@pytest.fixture(scope="module")
def readme() -> str:
    return README.read_text(encoding="utf-8")


def _commands() -> list[str]:
    top = getattr(typer.main.get_command(app), "commands", {})
    folded = getattr(top["tools"], "commands", {})
    return [*(name for name in top if name != "tools"), *(f"tools {name}" for name in folded)]


def _tables() -> dict[str, type[BaseModel]]:
    return {name: table_of(f.annotation) for name, f in StudyConfig.model_fields.items()}


def _documented_keys(text: str, table: str) -> set[str]:
    """Words of ``[table]``'s part of TOML blocks, comments too, and each `table.key` in text."""
    keys = set(re.findall(rf"`{table}\.(\w+)", text))
    for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL):
        for section in re.findall(rf"^\[{table}\]\n(.*?)(?=^\[|\Z)", block, re.DOTALL | re.M):
            keys |= set(re.findall(r"\w+", section))
        keys |= set(re.findall(rf"^\[\[{table}\.(\w+)\]\]", block, re.M))
    for line in text.splitlines():  # | `[search]` | `evaluations`, `n_images` ... |
        if line.startswith("|") and f"`[{table}]`" in line:
            keys |= set(re.findall(r"`(\w+)`", line))
    return keys


@pytest.mark.parametrize("command", _commands())
def test_the_documentation_names_every_command(command: str) -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (COMMANDS, METRICS))
    assert re.search(rf"`?s3search {command}\b", text), f"{COMMANDS} lacks `s3search {command}`"


def test_the_tables_of_a_study_file_are_found() -> None:
    assert set(_tables()) == set(StudyConfig.model_fields)


@pytest.mark.parametrize("table", sorted(StudyConfig.model_fields))
def test_every_key_of_the_study_file_is_documented(table: str) -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in (STUDY_FILE, SPACES, METRICS))
    assert f"[{table}]" in text, f"{STUDY_FILE} lacks the table [{table}]"
    missing = set(_tables()[table].model_fields) - _documented_keys(text, table)
    assert not missing, f"{STUDY_FILE} lacks these keys of [{table}]: {sorted(missing)}"


@pytest.mark.parametrize("field", sorted(SpaceConfig.model_fields))
def test_every_field_of_a_space_is_documented(field: str) -> None:
    assert f"| `{field}` |" in SPACES.read_text(encoding="utf-8")


def test_pictures_are_there_small_and_described() -> None:
    pictures = {
        (page.parent / path, words)
        for page in pages()
        for words, path in re.findall(r"!\[(.*?)\]\((.*?)\)", page.read_text(encoding="utf-8"))
    }
    assert len(pictures) >= 6
    assert [path for path, words in pictures if len(words) < 20] == []
    assert [path for path, _ in pictures if path.stat().st_size > 150_000] == []


def test_the_readme_is_short_and_its_links_lead_somewhere(readme: str) -> None:
    assert len(readme.splitlines()) <= 150
    for page in pages():
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)", text):
            assert (page.parent / target).exists(), f"{page.name} points at {target}"


def test_the_page_on_python_names_every_keyword_and_its_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PYTHON.read_text(encoding="utf-8")
    for function in (s3search.search, s3search.evaluate):
        words = set(inspect.signature(function).parameters) - {"more"}
        assert [word for word in words if not re.search(rf"\b{word}\b", text)] == []
    monkeypatch.chdir(tmp_path)
    names = run_python(PYTHON)
    assert {path.name for path in tmp_path.iterdir()} == {"schedule.json", "schedule.png"}
    assert names["value"] > 0.0


def test_the_worked_example_of_a_solver_carries_constants() -> None:
    (example,) = (block.code for block in blocks(OWN_SOLVER) if block.language == "python")
    module = ROOT / "tests" / "support" / "extrapolated.py"  # which other tests search with
    assert module.read_text(encoding="utf-8").endswith(example)
    names = run_python(OWN_SOLVER)
    run = exact_trajectory(vp_linear(), [0.9, 0.8])
    to = level(vp_linear(), 0.7)
    error = max_abs(
        run.next_state(names["Extrapolated"](c=0.5), to)
        - run.denoiser.exact_flow(run.states[-1], 0.8, 0.7)
    )
    assert error < 0.01  # it solves the flow
    assert names["Extrapolated"]().problem([level(vp_linear(), 0.9)], to) is not None


def test_the_worked_example_of_a_dataset_is_an_image_source() -> None:
    source = run_python(METRICS)["load"](n=5)
    assert isinstance(source, ImageSource)
    images = source.images(range(5))
    assert images.shape == (5, 3, 16, 16)
    assert images.min() < 0 <= images.abs().max() <= 1


@pytest.mark.parametrize("known", [FEATURES, REFERENCES], ids=["features", "references"])
def test_every_built_in_has_a_row_with_its_keys(known: dict[str, str]) -> None:
    lines = METRICS.read_text(encoding="utf-8").splitlines()
    for name, path in known.items():
        module, _, function = path.partition(":")
        keys = set(
            inspect.signature(getattr(importlib.import_module(module), function)).parameters
        )
        rows = [set(re.findall(r"`(\w+)`", line)) for line in lines if f"| `{name}` |" in line]
        assert any(keys <= row for row in rows), f"docs/metrics.md lacks {name}: {sorted(keys)}"


def test_every_protocol_has_a_row() -> None:
    text = METRICS.read_text(encoding="utf-8")
    assert not [name for name in PROTOCOLS if f"| `{name}` |" not in text]


def test_every_rule_is_in_the_table_of_solvers() -> None:
    text = SOLVERS.read_text(encoding="utf-8")
    assert not [name for name in rules() if f"| `{name}` |" not in text]


def test_nothing_says_to_install_the_package_from_an_index_that_has_it_not() -> None:
    """Extras come from a clone, ``'.[dashboard]'``, or by their packages' own names."""
    asks = re.compile(r"pip install [^\n]*\bs3search(?!-)\b|'s3search\[", re.IGNORECASE)
    folders = ("s3search", "search_spaces", "docs", "workers", "dashboards", "examples")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    for path in [*files, README, ROOT / "CONTRIBUTING.md"]:
        if path.suffix not in (".pyc", ".png", ".npz", ".safetensors"):
            found = asks.search(path.read_text(encoding="utf-8", errors="ignore"))
            assert found is None, f"{path.relative_to(ROOT)}: {found and found[0]}"
