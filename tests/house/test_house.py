"""What holds of the package's structure; ``python -m tests.house.measure`` prints all of it."""

from collections.abc import Mapping

import pytest

from tests.house.measure import (
    MOST_ARGUMENTS,
    ROOT,
    WordCount,
    count_words,
    cycles,
    homonyms,
    long_classes,
    loose_modules,
    many_arguments,
    same_docstrings,
)
from tests.house.source import Module, imports_of, read_modules

GONE = ("told", "lab", "witness", "freed", "FreeTable", "movable", "crew", "overdue", "sheets")
KEPT = {"bytes_freed"}  # of a database file: plain English, and a key that `s3search` prints
MOST_HOMONYMS = 3


@pytest.fixture(scope="module")
def modules() -> dict[str, Module]:
    """The package's modules, parsed."""
    return read_modules(ROOT)


@pytest.fixture(scope="module")
def words(modules: dict[str, Module]) -> Mapping[str, WordCount]:
    """Where the private words of the past still stand."""
    return count_words(modules, GONE)


def test_every_module_has_a_room(modules: dict[str, Module]) -> None:
    """Nothing but five modules lies on the package's top level."""
    assert loose_modules(modules) == []


def test_few_classes_share_a_name(modules: dict[str, Module]) -> None:
    """A class is known by its name, whatever module it is imported from."""
    found = homonyms(modules)
    assert len(found) <= MOST_HOMONYMS, found


def test_no_class_is_too_long(modules: dict[str, Module]) -> None:
    """A class can be read in one sitting."""
    assert long_classes(modules) == []


def test_no_call_counts_many_arguments(modules: dict[str, Module]) -> None:
    """What takes more arguments takes them by keyword."""
    assert many_arguments(modules, MOST_ARGUMENTS) == []


def test_no_module_imports_itself_through_others(modules: dict[str, Module]) -> None:
    """Imports inside functions count as well."""
    arrows = {name: imports_of(module, modules) for name, module in modules.items()}
    assert cycles(arrows) == []


def test_every_docstring_stands_alone(modules: dict[str, Module]) -> None:
    """A reader of `help` has not seen what "the same" refers to."""
    assert same_docstrings(modules) == []


@pytest.mark.parametrize("word", GONE)
def test_no_name_has_a_private_word(words: Mapping[str, WordCount], word: str) -> None:
    """Neither as a whole name nor as a part of one, as in "told_by" or "StudyLab"."""
    assert set(words[word].names) <= KEPT, words[word].names
