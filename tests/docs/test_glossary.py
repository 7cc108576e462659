"""The glossary explains what the program shows."""

import re

from tests.docs.pages import DOCS
from tests.docs.terms import explained, is_explained, normal, shown

PAGE = (DOCS / "glossary.md").read_text(encoding="utf-8")


def test_headings_and_names_are_found_where_they_are_shown() -> None:
    found = shown()
    assert len(found) > 100
    assert {"rung", "worker seconds", "of winner", "gaussian", "not covered"} <= set(found)
    assert {"held out", "count", "reference digest", "searching", "model fingerprint"} <= set(
        found
    )


def test_every_word_that_is_shown_is_in_the_glossary() -> None:
    terms = explained(PAGE)
    missing = [
        f"{term!r} of {where}" for term, where in shown().items() if not is_explained(term, terms)
    ]
    assert missing == [], "docs/glossary.md: add '- **term**: what it means'"


def test_a_term_is_explained_once_and_in_a_sentence() -> None:
    items = re.findall(r"^- (\*\*.*?\*\*): (.*)$", PAGE, re.MULTILINE)
    terms = [normal(term) for said, _ in items for term in re.findall(r"\*\*(.+?)\*\*", said)]
    assert len(terms) == len(set(terms))
    assert [said for said, words in items if len(words.split()) < 4] == []


def test_a_word_that_nobody_explained_is_missing() -> None:
    terms = explained("- **rung**, **rungs**: one way to judge.\n- **of A**, **published**: x")
    assert terms == {"rung", "rungs", "of a", "published"}
    assert is_explained("published, rungs", terms)
    assert not is_explained("plume", terms)
