"""An editable schedule: what random draws, mutation and crossover work on.

A draft may break any rule; `finished` makes the schedule nearest to it that lies in the space and
makes exactly the wanted number of network calls.  So every operator of the search is free to edit
as it likes, and all of them yield valid schedules.
"""

from s3search.search.edit.draft.drawing import random_coefficient, random_schedule, with_solver
from s3search.search.edit.draft.finishing import finished
from s3search.search.edit.draft.form import Draft, draft_of, lam_at, pick, random_end, random_first
from s3search.search.edit.draft.membership import misfit
from s3search.search.edit.draft.settling import set_end_rule, settle_times

__all__ = [
    "Draft",
    "draft_of",
    "finished",
    "lam_at",
    "misfit",
    "pick",
    "random_coefficient",
    "random_end",
    "random_first",
    "random_schedule",
    "set_end_rule",
    "settle_times",
    "with_solver",
]
