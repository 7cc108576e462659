"""The tutorial as notebooks: ``python -m tests.docs.notebooks`` writes them from its pages.

``python -m tests.docs.notebooks unet FOLDER`` runs one in full there, for the page's picture.
"""

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.docs.pages import BLOCK, DOCS, ROOT, blocks

TUTORIAL = DOCS / "tutorial"
EXAMPLES = ROOT / "examples"

_LINK = re.compile(r"\]\((?!https?:)([^)]+)\)")


def notebook_of(page: Path) -> dict[str, Any]:
    """The page's text and code as cells, without outputs."""
    text, cells, end = page.read_text(encoding="utf-8"), [], 0
    for match, block in zip(BLOCK.finditer(text), blocks(page), strict=True):
        cells += _words(text[end : match.start()])
        end = match.end()
        if block.language != "python":
            cells += _words(match[0])
            continue
        small = block.marked("small")
        cell: dict[str, Any] = {"cell_type": "code", "execution_count": None, "metadata": {}}
        if small is not None:  # what a test runs after the cell
            cell["metadata"] = {"tags": ["parameters"], "s3search": {"small": small}}
        cells.append(cell | {"outputs": [], "source": block.code.rstrip("\n")})
    cells += _words(text[end:])
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 4,
    }


def _words(text: str) -> list[dict[str, Any]]:
    """A cell of Markdown, with links from the folder of examples; none without words."""
    moved = _LINK.sub(lambda match: f"]({_from_examples(match[1])})", text.strip())
    return [{"cell_type": "markdown", "metadata": {}, "source": moved}] if moved else []


def _from_examples(target: str) -> str:
    if target.startswith("../../examples/"):
        return target.removeprefix("../../examples/")
    return f"../docs/{target[3:]}" if target.startswith("../") else f"../docs/tutorial/{target}"


def notebook_path(page: Path) -> Path:
    """Where the notebook of a page lies."""
    return EXAMPLES / f"tutorial_{page.stem}.ipynb"


def text_of(notebook: Mapping[str, Any]) -> str:
    """The file."""
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def run_notebook(path: Path, *, in_full: bool = False) -> dict[str, Any]:
    """Runs the cells of a notebook in this process, made small; what they defined."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            exec(compile(cell["source"], f"{path.name}, cell {number}", "exec"), names)
            exec("" if in_full else cell["metadata"].get("s3search", {}).get("small", ""), names)
    return names


def write_all() -> None:
    """Writes the notebook of each page."""
    for page in sorted(TUTORIAL.glob("*.md")):
        notebook_path(page).write_text(text_of(notebook_of(page)), encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:]:
        name, folder = sys.argv[1:]
        os.chdir(folder)
        run_notebook(notebook_path(TUTORIAL / f"{name}.md"), in_full=True)
    else:
        write_all()
