"""What the site's pages may name in braces: reference that is made while the site is built."""

import logging
from collections.abc import Callable
from typing import Any

import generate
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from s3search.cli import app as commands

_MADE: dict[str, Callable[[], str]] = {
    "study-keys": generate.study_keys,
    "command-line": lambda: generate.command_line(commands),
    "database-tables": generate.database_tables,
}


class _Made(SphinxDirective):
    """The Markdown that a function makes, read as if it stood on the page."""

    def run(self) -> list[nodes.Node]:
        """The sections and tables."""
        return self.parse_text_to_nodes(_MADE[self.name](), allow_section_headings=True)


def _navigation(app: Sphinx, page: str, source: list[str]) -> None:
    if page == app.config.root_doc:
        source[0] = generate.with_navigation(source[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells Sphinx's handler of plug-ins
    for name in _MADE:
        app.add_directive(name, _Made)
    app.connect("source-read", _navigation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
