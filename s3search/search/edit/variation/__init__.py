"""Mutation, crossover and migration: how schedules come from schedules.

Every operator edits a `Draft` freely and leaves it to `finished` to make a valid schedule of the
same number of network calls out of it, so children are valid whatever the operators do.  Times
that an operator does not touch keep their last bit: children share the network calls of their
common prefix.
"""

from s3search.search.edit.variation.children import crossover, migrate, mutate
from s3search.search.edit.variation.steps import as_linear

__all__ = ["as_linear", "crossover", "migrate", "mutate"]
