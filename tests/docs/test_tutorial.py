"""The tutorial's pages are notebooks too, and they run, with little to do."""

import json
from pathlib import Path

import pytest
import torch

from s3search.schedules.schedule import Schedule
from tests.docs.notebooks import (
    EXAMPLES,
    TUTORIAL,
    notebook_of,
    notebook_path,
    run_notebook,
    text_of,
)

PAGES = sorted(TUTORIAL.glob("*.md"))


def test_there_is_a_notebook_for_each_page_and_no_other() -> None:
    assert {page.stem for page in PAGES} == {"unet", "pipeline", "flow"}
    assert sorted(EXAMPLES.glob("*.ipynb")) == sorted(map(notebook_path, PAGES))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_notebook_is_its_page(page: Path) -> None:
    written = notebook_path(page).read_text(encoding="utf-8")
    assert written == text_of(notebook_of(page)), "python -m tests.docs.notebooks writes it anew"
    cells = json.loads(written)["cells"]
    assert not any(cell.get("outputs") for cell in cells)
    assert sum("small" in cell["metadata"].get("s3search", {}) for cell in cells) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning:diffusers.*", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "made", "calls"),
    [
        ("unet", {"schedule.json", "schedule.png", "images.png"}, [5]),
        ("pipeline", {"five-calls", "digit.png"}, [5]),
        ("flow", {"three.json", "five.json", "my_node.py"}, [3, 5]),
    ],
)
def test_a_notebook_runs_from_its_top(
    name: str, made: set[str], calls: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    found = run_notebook(EXAMPLES / f"tutorial_{name}.ipynb")["found"]
    assert {path.name for path in tmp_path.iterdir()} == made
    assert sorted(found.schedules) == calls
    files = [path for path in made if path.endswith(".json")]
    assert all(Schedule.load(file).nfe in calls for file in files)
