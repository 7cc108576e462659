"""What the site makes of the code and of the index; `make docs` builds it whole, strictly."""

import importlib.util
import re
import sys
from types import ModuleType

import pytest

import s3search
from s3search.cli import app
from s3search.study.database.tables import METADATA
from s3search.study.file.config import StudyConfig
from tests.docs.pages import DOCS, ROOT

SITE = DOCS / "site"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """docs/site/generate.py, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("generate", SITE / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    return module


def test_every_key_of_a_study_file_has_its_type_default_and_meaning(generate: ModuleType) -> None:
    text = generate.study_keys()
    for name, field in StudyConfig.model_fields.items():
        (part,) = re.findall(rf"^## `\[{name}\]`\n(.*?)(?=^## |\Z)", text, re.M | re.S)
        for key in generate.table_of(field.annotation).model_fields:
            assert f"| `{key}` |" in part
    assert "| `finalists` | whole number from 1 | `8` | what is exported is chosen among" in text
    assert '| `precision` | `"float32"`, `"bfloat16"` | `float32` |' in text


def test_a_key_that_nothing_explains_stops_the_site(generate: ModuleType) -> None:
    page = (DOCS / "study-file.md").read_text(encoding="utf-8")
    silent = re.sub(r"(finalists = 8) .*", r"\1", page)
    assert silent != page
    with pytest.raises(generate.Undocumented, match=r"validation\.finalists"):
        generate.study_keys(silent)


def test_every_command_has_its_options_and_defaults(generate: ModuleType) -> None:
    text = generate.command_line(app)
    assert "## launch\n" in text
    assert "s3search launch STUDY.toml [OPTIONS]" in text
    assert "| `--set` (several) | Override a value of the study file. |" in text
    assert "## storage copy\n" in text
    assert text.count("\n## ") > 15


def test_every_column_of_the_database_is_there(generate: ModuleType) -> None:
    text = generate.database_tables()
    for table in METADATA.tables.values():
        (part,) = re.findall(rf"^## `{table.name}`\n(.*?)(?=^## |\Z)", text, re.M | re.S)
        assert [c.name for c in table.columns if f"| `{c.name}` |" not in part] == []
    assert "| `schedule_id` | varchar(32), of `s3search_schedules` |" in text
    assert "image-calls spent: the cost ledger sums this" in text


def test_the_index_is_the_navigation_and_names_every_page_once(generate: ModuleType) -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    made = generate.with_navigation(index).removeprefix(index)
    assert made.count("```{toctree}") == index.count("\n## ")
    named = [(DOCS / f"{page}.md").resolve() for page in re.findall(r" <(.*)>$", made, re.M)]
    assert len(named) == len(set(named))
    pages = set(DOCS.rglob("*.md")) - {DOCS / "index.md"}
    outside = {ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")}
    folders = ("search_spaces", "search_spaces/studies", "workers", "dashboards", "examples")
    assert set(named) == pages | outside | {ROOT / each / "README.md" for each in folders}


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    page = (DOCS / "reference" / "python.md").read_text(encoding="utf-8")
    missing = [name for name in s3search.__all__ if f"s3search.{name}" not in page]
    assert missing == []
