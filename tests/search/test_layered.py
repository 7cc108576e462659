"""AutoDiffusion's second stage: times and blocks under a budget."""

import pytest

from s3search.errors import InvalidConfig
from s3search.processes import edm
from s3search.schedules import published
from s3search.schedules.layers import Layer, Layers, lists_of, skips_layers, whole
from s3search.schedules.schedule import Schedule
from s3search.search.algorithms.layered import LayeredAutoDiffusion, affordable, within
from s3search.search.space import load_space
from s3search.search.trial import Trial, published_as, seeded
from tests.search.test_evolution import gaussian_error
from tests.support.searches import facts, measured, proposals, setup_of

SPACE = load_space("timesteps")
LAYERS = Layers(
    multiply_adds=100,
    layers=(
        Layer(name="a", kind="Block", shape=(1, 8), multiply_adds=40, inside=None),
        Layer(name="a.0", kind="Block", shape=(1, 8), multiply_adds=20, inside=0),
        Layer(name="b", kind="Block", shape=(1, 8), multiply_adds=25, inside=None),
    ),
)
COST = 4.0
EVALUATIONS = 90


def search(
    seed: int = 0, nfe: tuple[int, ...] = (4, 5), solver: str = "2m", seeds: bool = False
) -> LayeredAutoDiffusion:
    space = SPACE.model_copy(update={"cost": COST})
    given = [
        Trial.of(make(edm(), nfe=n), published_as(name, nfe=n))
        for n in nfe
        for name, make in {"DDIM": published.ddim, "UniPC": published.unipc}.items()
    ]
    setup = setup_of(
        space,
        edm(),
        nfe=nfe,
        seed=seed,
        seeds=given if seeds else (),
        found={"layers": LAYERS},
        evaluations=EVALUATIONS,
    )
    return LayeredAutoDiffusion(setup, solver=solver)


def value_of(schedule: Schedule) -> float:
    """Block 2 does nothing; each of the others is worth more than a call."""
    missed = sum(index != 2 for skipped in lists_of(schedule) for index in skipped)
    return gaussian_error(whole(schedule)) + 0.1 * missed


def run(proposer: LayeredAutoDiffusion, n: int) -> list[Trial]:
    return proposals(lambda: proposer, n, value_of)


@pytest.fixture(scope="module", name="made")
def _made() -> list[Trial]:
    return run(search(), EVALUATIONS)


def test_times_come_first_and_layers_then(made: list[Trial]) -> None:
    first, second = made[: EVALUATIONS // 3], made[EVALUATIONS // 3 :]
    assert all(p.schedule.nfe == 4 and not skips_layers(p.schedule) for p in first)
    assert {p.schedule.nfe for p in second} == {4, 5}
    assert {p.origin.text for p in second} == {"mutation", "crossover", "random"}
    assert all(skips_layers(p.schedule) for p in second if p.schedule.nfe == 5)


def test_nothing_costs_more_than_the_budget_and_nothing_comes_twice(made: list[Trial]) -> None:
    assert max(LAYERS.cost(p.schedule) for p in made) <= COST + 1e-9
    assert len({p.schedule.id for p in made}) == len(made)
    for trial in made:
        for skipped in lists_of(trial.schedule):
            assert LAYERS.outermost(skipped) == skipped


def test_parents_are_among_the_best_before(made: list[Trial]) -> None:
    first = sorted(made[: EVALUATIONS // 3], key=lambda p: value_of(p.schedule))
    best = {trial.schedule.id for trial in first[:10]}
    parents = [p.parents for p in made[EVALUATIONS // 3 :][:50]]
    assert any(parents) and {own for ids in parents for own in ids} <= best


def test_generations_learn_which_block_does_nothing() -> None:
    made = [p.schedule for p in run(search(), 240)]
    more = [own for own in made if own.nfe == 5]
    best = min(more, key=value_of)
    assert value_of(best) < min(map(value_of, more[:15]))
    skipped = [index for own in lists_of(best) for index in own]
    assert skipped.count(2) > len(skipped) / 2


def test_proposals_follow_from_what_was_told_alone(made: list[Trial]) -> None:
    again = search()
    for trial in made[:70]:
        again.tell(measured(trial, value_of(trial.schedule)))
    assert facts(again.propose(70, [])) == facts(made[70])
    pending = again.propose(70, [])
    assert again.propose(70, [pending]).schedule.id != pending.schedule.id


def test_seeds_within_the_budget_come_first_and_the_best_lends_its_steps() -> None:
    made = run(search(solver="", seeds=True), EVALUATIONS // 3 + 20)
    assert [p.origin.text for p in made[:2]] == ["baseline: DDIM, NFE 4", "baseline: UniPC, NFE 4"]
    better = min(made[:2], key=lambda p: value_of(p.schedule)).schedule
    assert better.steps == published.unipc(edm(), nfe=4).steps
    later = [p.schedule for p in made[2 + EVALUATIONS // 3 :]]
    steps = {nfe: published.unipc(edm(), nfe=nfe).steps for nfe in (4, 5)}
    assert {own.nfe for own in later} == {4, 5}
    assert all(own.steps == steps[own.nfe] for own in later)


def test_a_users_own_schedules_lend_their_steps_at_their_own_number_of_calls_alone() -> None:
    setup = setup_of(
        SPACE.model_copy(update={"cost": COST}),
        edm(),
        found={"layers": LAYERS},
        nfe=(4, 5),
        seeds=[
            Trial.of(published.unipc(edm(), nfe=4), seeded("mine.json")),
            Trial.of(published.dpmpp_2m(edm(), nfe=5), seeded("another.json")),
        ],
        evaluations=EVALUATIONS,
    )
    made = run(LayeredAutoDiffusion(setup), EVALUATIONS // 3 + 11)
    assert made[0].origin.text == "seed: mine.json"
    later = [trial.schedule for trial in made[1 + EVALUATIONS // 3 :]]
    steps = {4: published.unipc(edm(), nfe=4).steps, 5: published.ddim(edm(), nfe=5).steps}
    assert {own.nfe for own in later} == {4, 5}
    assert all(own.steps == steps[own.nfe] for own in later)


def test_failed_measurements_count_but_are_no_parents() -> None:
    proposer = search()
    for number in range(EVALUATIONS // 3 + 4):
        trial = proposer.propose(number, [])
        assert trial.parents == ()
        proposer.tell(measured(trial, None))
    assert skips_layers(trial.schedule) or trial.schedule.nfe == 4


def test_a_budget_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InvalidConfig, match=r"afford none of .* 5, 6 whole, .*; add 4 to"):
        affordable((5, 6), LAYERS, 4.0)
    with pytest.raises(InvalidConfig, match=r"never pay for 12 calls, which cost 4.2 without"):
        affordable((4, 12), LAYERS, 4.0)
    assert affordable((3, 4, 5), LAYERS, 4.0) == (3, 4)
    plain = [Trial.of(published.ddim(edm(), nfe=n), published_as(str(n))) for n in (3, 4, 5)]
    assert [trial.origin.label for trial in within(plain, LAYERS, 4.0)] == ["3", "4"]
