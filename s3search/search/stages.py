"""The stages of a study, and what its costs are told by, in words for whoever waits: the one table
for terminal, status, report and dashboards.

The names are those under which answers are counted, stored and foretold: the rungs and kinds of
`s3search.search.questions`, the stages of `s3search.search.gains`, a study's states.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StageWords:
    """A stage for people: its title, and what it does in a line."""

    title: str
    about: str


_BASELINES = StageWords("trying published samplers", "what is known: to beat, and to breed from")
_BREEDING = StageWords("breeding", "new schedules are made of the best so far, and measured")

STAGES = {
    "stock": StageWords(
        "trying what runs today", "the pipeline's own sampler and the libraries' defaults"
    ),
    "baselines": _BASELINES,
    "seeds": _BASELINES,
    "search": _BREEDING,
    "evolution": _BREEDING,
    "polish": StageWords(
        "fine-tuning the best", "levels and weights follow the metric's gradient"
    ),
    "finals": StageWords("second look at the best", "on other noise, so that luck does not win"),
    "validation": StageWords(
        "final check on unseen noise", "the best found beside the best published"
    ),
    "witness": StageWords("check by a second metric", "the final images, as it sees them"),
    "floor": StageWords("real against real images", "the best to be expected"),
    "measured": StageWords(
        "measuring schedules", "published and bred ones, on the search's noise"
    ),
    "race": StageWords("stopped early", "poor after a few images, and measured no further"),
    "gaussian": StageWords("scoring by a Gaussian", "a formula, without a network call"),
    "mixture": StageWords("scoring by a mixture", "of Gaussians, without a network call"),
    "solves": StageWords("solving noises finely", "what images are compared with, once for each"),
    "held_out_solves": StageWords(
        "solving unseen noises finely", "what the final images are compared with"
    ),
    "trajectory": StageWords("scoring by fine solves", "a few noises, followed closely"),
}

_WITHIN = frozenset(
    ("solves", "held_out_solves", "gaussian", "mixture", "trajectory", "race", "witness", "floor")
)


def stage_words(name: str) -> StageWords:
    """The words for a stage by its name; a round of polishing says its number.

    >>> stage_words("polish 2").title
    'fine-tuning the best, round 2'
    """
    kind, _, number = name.partition(" ")
    known = STAGES.get(kind)
    if known is None:
        return StageWords(name, "")
    return StageWords(f"{known.title}, round {number}", known.about) if number else known


def stage_after(before: str, name: str) -> str:
    """The stage that a person sees once an answer is counted under ``name``: scores and early
    stops belong to the stage in which they are asked for, as measurements do of what was polished.
    """
    if name in _WITHIN:
        return before or "baselines"
    return before if (before, name) == ("polish", "search") else name
