"""Sphinx builds the site from the repository's pages as they are: `make docs`.

Sphinx, with furo and MyST, and not Material for MkDocs, because that says of itself that it is
inactive (its classifier on the index, 9.8) and stands on MkDocs 1.6 of 2024; Sphinx and MyST
are released several times a year, autodoc needs no plug-in, and furo's fonts, scripts and search
come with the pages and work from a folder too.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for the extension beside this file

project = "s3search"
author = "the authors of s3search"
copyright = "the authors of s3search, Apache-2.0"  # Sphinx asks for this name
root_doc = "docs/index"
extensions = ["myst_parser", "sphinx.ext.autodoc", "reference"]

# The source is the whole repository, so that a link between two pages is the same on the site and
# in the repository.  What is no page is left out whole, or Sphinx walks through it.
include_patterns = ["*.md", "*/README.md", "search_spaces/studies/README.md", "docs/**.md"]
exclude_patterns = ["s3search", "tests", "build", "dist", "demo", "bench", ".*", "**/__pycache__"]

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
default_role = "code"
smartquotes = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "s3search"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["root"]  # an index.html that leads to docs/
html_copy_source = False
html_show_sphinx = False
html_show_search_summary = False  # it fetches pages, which a browser forbids to files
html_theme_options = {"top_of_page_buttons": []}
