"""Noise in the steps that a search makes: drawn rarely, moved, inherited, and made to fit."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from s3search.errors import InvalidConfig
from s3search.models.gaussian import gaussian_distance
from s3search.processes import NoiseProcess, edm, flow, vp_linear
from s3search.rules import NoiseKind, Prediction, StepNoise, level
from s3search.rules.sde import SdeTaylor
from s3search.schedules import published
from s3search.schedules.schedule import Schedule, Start, Step
from s3search.search.algorithms.autodiffusion import AutoDiffusion
from s3search.search.edit.draft import draft_of, finished, misfit, random_schedule
from s3search.search.edit.extend_nfe import extended
from s3search.search.edit.noising import seeded_with_noise
from s3search.search.edit.restart import begun_lower
from s3search.search.edit.variation import crossover, mutate
from s3search.search.space import Problem, SpaceConfig, load_space
from s3search.search.space.targets import narrowed
from s3search.solvers.coefficients import as_coefficients, coefficient_table, schedule_of_table
from s3search.solvers.plan import compile_plan
from tests.support.searches import proposals, setup_of

NOISE = {"eta": [0.0, 1.0], "gamma": [0.0, 0.5], "s_noise": [0.9, 1.1]}
ONLY_NOISE = dict.fromkeys(load_space("usf").mutation.model_dump(), 0.0) | {"noise": 1.0}


def problem_of(process: NoiseProcess | None = None, **fields: Any) -> Problem:
    """The choices of `usf` with noise."""
    return Problem(load_space("usf", {"noise": NOISE, **fields}), process or edm())


def noises(schedule: Schedule) -> list[StepNoise]:
    """Those of the steps that add any."""
    return [step.noise for step in schedule.steps if step.noise is not None]


def with_noise(schedule: Schedule, *added: StepNoise | None) -> Schedule:
    """The schedule with noise in its first steps."""
    rest = [None] * (schedule.n_steps - len(added))
    steps = zip(schedule.steps, (*added, *rest), strict=True)
    return schedule.changed(steps=[s.model_copy(update={"noise": own}) for s, own in steps])


# -- the field -----------------------------------------------------------------------------


def test_noise_is_off_unless_it_is_named() -> None:
    for space in (load_space("usf"), load_space("timesteps"), load_space("usf", {"noise": {}})):
        assert not space.noise.is_on
        assert space.noise.scales == (1.0, 1.0)
    assert set(load_space("usf", {"noise": NOISE}).noise.ranges) == {
        NoiseKind.ETA,
        NoiseKind.GAMMA,
    }


def test_a_table_beside_the_preset_replaces_its_own(tmp_path: Any) -> None:
    own = tmp_path / "own.toml"
    own.write_text("noise = { eta = [0.0, 1.0], s_noise = [0.9, 1.1] }\n")
    assert load_space(own).noise.eta == (0.0, 1.0)
    other = load_space(own, {"noise": {"gamma": [0.0, 1.0]}}).noise
    assert (other.eta, other.gamma, other.s_noise) == (None, (0.0, 1.0), None)
    assert not load_space(own, {"noise": {}}).noise.is_on


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ({"etta": [0, 1]}, "space.noise.etta: unknown key; did you mean 'eta'?"),
        (
            {"time": [0, 1]},
            "space.noise.time: unknown key; known: eta, flow_eta, gamma, s_noise, sde",
        ),
        ({"eta": [1, 0]}, "eta: need 0 <= low <= high and high above 0, found [1.0, 0.0]"),
        ({"eta": [0, 0]}, "eta: need 0 <= low <= high and high above 0, found [0.0, 0.0]"),
        ({"gamma": [0, 1.5]}, "gamma: need 0 <= low <= high <= 1 and high above 0"),
        ({"eta": [0, 1], "s_noise": [0, 1]}, "s_noise: need 0 < low <= high, found [0.0, 1.0]"),
        ({"s_noise": [1, 1.1]}, "s_noise: multiplies noise that no kind adds"),
    ],
)
def test_wrong_ranges_are_named(noise: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=re.escape(message)):
        load_space("usf", {"noise": noise})


def test_lists_for_a_programs_own_solver_have_no_noise() -> None:
    asked = {"nfe": [5], "target": "sigmas", "noise": {"eta": [0.0, 1.0], "s_noise": [1.0, 1.1]}}
    message = (
        "space.noise: eta [0, 1], s_noise [1, 1.1] was asked, and target = 'sigmas' can express "
        "none only"
    )
    with pytest.raises(InvalidConfig, match=re.escape(message)):
        narrowed(load_space("usf", asked), {"noise", "target"})
    left, fields = narrowed(load_space("full", {"nfe": [5], "target": "sigmas"}))
    assert "noise" in fields
    assert not left.noise.is_on


def test_a_space_without_noise_is_stored_as_before_there_was_any() -> None:
    stored = load_space("usf").model_dump(mode="json")
    assert "noise" not in stored
    assert "noise" not in stored["mutation"]
    on = problem_of().space.model_dump(mode="json")
    assert on["noise"] == {**NOISE, "sde": None, "flow_eta": None}
    assert on["mutation"]["noise"] == 1.0


# -- what is drawn and mutated -------------------------------------------------------------


def test_most_drawn_schedules_have_no_noise_and_some_have_one_for_all_steps() -> None:
    problem, rng = problem_of(), np.random.default_rng(0)
    drawn = [random_schedule(problem, 6, rng) for _ in range(300)]
    noisy = [schedule for schedule in drawn if schedule.is_stochastic]
    assert 0.15 < len(noisy) / len(drawn) < 0.35
    common = [s for s in noisy if len(set(noises(s))) == 1 and len(noises(s)) >= 5]
    assert 0.25 < len(common) / len(noisy) < 0.7
    amounts = [own.amount for s in noisy for own in set(noises(s)) if own.kind is NoiseKind.ETA]
    assert np.median(amounts) < 0.4  # small ones are the likelier


def test_what_is_drawn_without_noise_is_as_it_was() -> None:
    plain = Problem(load_space("usf"), edm())
    off = Problem(load_space("usf", {"noise": {}}), edm())
    for seed in range(20):
        a, b = (random_schedule(p, 5, np.random.default_rng(seed)) for p in (plain, off))
        assert a.id == b.id
        assert not a.is_stochastic
        assert not mutate(plain, a, np.random.default_rng(seed)).is_stochastic


def test_mutation_reaches_every_kind_amount_and_factor_and_takes_noise_away() -> None:
    problem, rng = problem_of(mutation=ONLY_NOISE), np.random.default_rng(1)
    schedule = published.dpmpp_2m(edm(), nfe=6)
    seen, n_noisy = [], set()
    for _ in range(300):
        child = mutate(problem, schedule, rng)
        assert child.times == schedule.times
        assert [s.predictor for s in child.steps] == [s.predictor for s in schedule.steps]
        assert misfit(problem, child) is None
        seen += noises(child)
        n_noisy.add(len(noises(child)))
        schedule = child
    assert {own.kind for own in seen} == {NoiseKind.ETA, NoiseKind.GAMMA}
    assert len({own.scale for own in seen}) > 20
    assert len({own.amount for own in seen}) > 50
    assert {0, 5} <= n_noisy
    assert max(own.amount for own in seen if own.kind is NoiseKind.GAMMA) <= 0.5
    assert all(0.9 <= own.scale <= 1.1 for own in seen)


def test_the_step_to_the_clean_end_has_none() -> None:
    problem, rng = problem_of(end_rules=["denoise"], mutation=ONLY_NOISE), np.random.default_rng(2)
    schedule = random_schedule(problem, 5, rng)
    for _ in range(100):
        schedule = mutate(problem, schedule, rng)
        assert schedule.steps[-1].noise is None


def test_children_inherit_noise_with_its_step() -> None:
    space = {"mutation": ONLY_NOISE}
    problem, rng = problem_of(**space), np.random.default_rng(3)
    plain = published.dpmpp_2m(edm(), nfe=6)
    noisy = with_noise(plain, *[StepNoise(kind=NoiseKind.ETA, amount=0.5)] * 5)
    found = {len(noises(crossover(problem, plain, noisy, rng))) for _ in range(60)}
    assert len(found) > 2
    without = Problem(load_space("usf"), edm())
    children = [crossover(without, plain, noisy, rng) for _ in range(30)]
    assert not any(child.is_stochastic for child in children)


# -- what is made to fit -------------------------------------------------------------------


@pytest.mark.parametrize("process", [edm(), vp_linear(), flow()], ids=lambda p: p.type)
@pytest.mark.parametrize("kind", [kind for kind in NoiseKind if kind is not NoiseKind.TIME])
def test_noise_of_another_kind_begins_as_far_below(process: NoiseProcess, kind: NoiseKind) -> None:
    ends = [(0.99, 0.8), (0.7, 0.2), (0.3, 0.01)]
    given = [
        StepNoise(kind=NoiseKind.ETA, amount=0.6, scale=1.05),
        StepNoise(kind=NoiseKind.FLOW_ETA, amount=0.4),
        StepNoise(kind=NoiseKind.GAMMA, amount=0.15),
    ]
    for s, t in ends:
        start, to = level(process, process.time_range[1] * s), level(process, t)
        for noise in [*given, StepNoise(kind=NoiseKind.TIME, amount=0.9 * t)]:
            other = noise.of_kind(kind, process, start, to)
            assert other.kind is kind
            assert other.scale == noise.scale
            share = noise.share(process, start, to)
            assert other.share(process, start, to) == pytest.approx(share, rel=1e-9)


def test_what_lies_outside_the_ranges_is_drawn_to_their_ends() -> None:
    problem = problem_of()
    wild = StepNoise(kind=NoiseKind.GAMMA, amount=0.8, scale=1.5)
    schedule = with_noise(published.dpmpp_2m(edm(), nfe=4), wild)
    assert misfit(problem, schedule) == "steps[0].noise: is not a choice of the space"
    near = finished(problem, draft_of(schedule), 4, np.random.default_rng(0))
    assert noises(near) == [StepNoise(kind=NoiseKind.GAMMA, amount=0.5, scale=1.1)]
    without = Problem(load_space("usf"), edm())
    bare = finished(without, draft_of(schedule), 4, np.random.default_rng(0))
    assert bare.id == published.dpmpp_2m(edm(), nfe=4).id


def test_a_restart_is_no_schedule_of_the_space_but_has_children_there() -> None:
    times = (80.0, 8.0, 1.0, 8.0, 1.0, 0.02)
    steps, restart = [*published.ddim_steps(5)], StepNoise(kind=NoiseKind.TIME, amount=1.0)
    steps[2] = steps[2].model_copy(update={"noise": restart})
    schedule = Schedule(process=edm(), times=times, steps=steps)
    problem, rng = problem_of(), np.random.default_rng(4)
    assert misfit(problem, schedule) is not None
    for _ in range(20):
        child = mutate(problem, schedule, rng)
        assert misfit(problem, child) is None
        assert child.nfe == schedule.nfe


def test_churn_at_the_start_is_no_choice() -> None:
    plain = published.dpmpp_2m(edm(), nfe=4)
    start = Start(noise=StepNoise(kind=NoiseKind.GAMMA, amount=0.2))
    churned, problem = plain.changed(start=start), problem_of()
    assert misfit(problem, churned) == "start.noise: is not a choice of the space"
    assert finished(problem, draft_of(churned), 4, np.random.default_rng(0)).id == plain.id


def test_optimised_steps_take_no_noise() -> None:
    problem = problem_of()
    free = schedule_of_table(coefficient_table(published.dpmpp_2m(edm(), nfe=4)))
    draft = draft_of(free)
    noise = StepNoise(kind=NoiseKind.ETA, amount=0.5)
    draft.choices = [replace(choice, noise=noise) for choice in draft.choices]
    child = finished(problem, draft, 4, np.random.default_rng(0))
    assert child.steps == free.steps


def test_a_step_that_is_impossible_from_so_far_below_gives_up_its_noise() -> None:
    """Gamma 1 goes to the clean end first, which a step of second order cannot."""
    problem = problem_of(noise={"gamma": [0.0, 1.0]})
    whole = StepNoise(kind=NoiseKind.GAMMA, amount=1.0)
    draft = draft_of(published.dpmpp_2m(edm(), nfe=5))
    draft.choices = [replace(choice, noise=whole) for choice in draft.choices]
    child = finished(problem, draft, 5, np.random.default_rng(0))
    assert [step.noise for step in child.steps[:2]] == [whole, None]
    assert [step.predictor.n_points for step in child.steps[:2]] == [1, 2]
    lcm = [Step(predictor=published.ddim_steps(1)[0].predictor, noise=whole)] * 3
    schedule = child.changed(steps=[*lcm, *child.steps[3:]])
    assert misfit(problem, schedule) is None
    assert schedule.steps[0].predictor.extrapolated is Prediction.DATA


# -- a start for gradient descent ------------------------------------------------------------


@pytest.mark.parametrize("process", [edm(), vp_linear(), flow()], ids=lambda p: p.type)
@pytest.mark.parametrize("kind", ["eta", "sde", "flow_eta", "gamma"])
def test_a_polish_may_begin_with_a_little_noise_of_the_spaces_own_kind(
    process: NoiseProcess, kind: str
) -> None:
    problem = Problem(load_space("usf", {"noise": {kind: [0.0, 1.0]}}), process)
    plain = published.unipc(process, nfe=5)
    made = seeded_with_noise(problem, plain)
    assert made is not None
    assert {own.kind for own in noises(made)} == {NoiseKind(kind)}
    assert (made.times, made.nfe) == (plain.times, plain.nfe)
    levels = [level(process, t) for t in made.times]
    for i, step in enumerate(made.steps):
        if step.noise is not None:
            share = step.noise.share(process, levels[i], levels[i + 1])
            assert share == pytest.approx(np.sin(0.2) ** 2, rel=1e-6)


def test_no_noise_is_seeded_where_there_is_none_or_some_already() -> None:
    plain, problem = published.ddim(edm(), nfe=4), problem_of()
    assert seeded_with_noise(Problem(load_space("usf"), edm()), plain) is None
    assert seeded_with_noise(problem, published.ddim(edm(), nfe=4, eta=0.5)) is None
    assert seeded_with_noise(problem, as_coefficients(plain)) is None
    assert seeded_with_noise(problem, published.ddim(edm(), nfe=1)) is None


def test_rules_with_noise_of_their_own_are_of_a_space_with_noise_alone() -> None:
    sde = published.dpmpp_2m_sde(edm(), nfe=6)
    rng = np.random.default_rng(5)
    problem, without = problem_of(), Problem(load_space("usf"), edm())
    assert misfit(problem, sde) is None
    assert finished(problem, draft_of(sde), 6, rng).id == sde.id
    assert misfit(without, sde) == "steps[0]: published is not a choice of the space"
    plain = finished(without, draft_of(sde), 6, rng)
    assert not plain.is_stochastic
    assert [step.predictor.n_points for step in plain.steps] == [1, 2, 2, 2, 2, 1]
    assert "sde" not in SpaceConfig().families


def test_mutation_moves_the_noise_of_rules_and_takes_it_away() -> None:
    problem, rng = problem_of(mutation=ONLY_NOISE), np.random.default_rng(6)
    sde = published.dpmpp_2m_sde(edm(), nfe=6)
    seen: set[StepNoise] = set()
    n_plain = set()
    for _ in range(200):
        child = mutate(problem, sde, rng)
        assert misfit(problem, child) is None
        own = [
            step.predictor.noise for step in child.steps if isinstance(step.predictor, SdeTaylor)
        ]
        seen |= set(own)
        n_plain.add(5 - len(own))
    assert len({noise.amount for noise in seen}) > 20
    assert len({noise.scale for noise in seen}) > 20
    assert {noise.kind for noise in seen} == {NoiseKind.SDE}
    assert all(0.0 < noise.amount <= 1.0 for noise in seen)
    assert {0, 1, 5} <= n_plain


# -- elsewhere in a search -----------------------------------------------------------------


def test_a_lower_beginning_keeps_amounts_and_leaves_times_of_noise_alone() -> None:
    eta = published.ddim(edm(), nfe=5, eta=0.5)
    lower = begun_lower(eta, 1)
    assert lower is not None
    assert lower.steps == eta.steps
    assert lower.times[0] == pytest.approx(40.0)
    assert begun_lower(published.tcd_on(edm(), eta.times, 0.3), 1) is None


def test_a_search_of_times_takes_no_steps_whose_noise_has_times() -> None:
    times = published.ddim(edm(), nfe=5).times
    tcd, eta = published.tcd_on(edm(), times, 0.3), published.ddim(edm(), nfe=5, eta=0.5)
    given = {"TCD, own": tcd, "DDIM eta 0.5, own": eta}
    proposer = AutoDiffusion(setup_of(problem_of().space, edm(), nfe=(5,), seeds=given))
    values = {tcd.id: 1.0, eta.id: 2.0}
    made = proposals(lambda: proposer, 12, lambda schedule: values.get(schedule.id, 3.0))
    assert {trial.schedule.steps for trial in made[2:]} == {eta.steps}


def test_one_call_more_keeps_the_distribution() -> None:
    """The new point has no noise and its call no weight: mean and covariance are the same."""
    mean, values = np.array([0.3, -0.2]), np.array([0.04, 0.5])
    for schedule in (
        published.ddim(edm(), nfe=4, eta=0.7),
        published.dpmpp_2m_sde(edm(), nfe=5),
        with_noise(published.unipc(edm(), nfe=5), None, StepNoise(amount=0.4)),
    ):
        more = extended(schedule)
        assert more is not None
        assert more.nfe == schedule.nfe + 1
        own, other = (
            gaussian_distance(compile_plan(s), mean, values)[0] for s in (schedule, more)
        )
        assert other == pytest.approx(own, rel=1e-9)


@pytest.mark.parametrize("is_on", [False, True], ids=["without", "with"])
def test_children_of_optimised_steps_with_noise_lie_in_the_space(is_on: bool) -> None:
    problem = problem_of() if is_on else Problem(load_space("usf"), edm())
    rng, n_noisy = np.random.default_rng(7), 0
    for parent in (published.ddim(edm(), nfe=5, eta=0.5), published.dpmpp_2m_sde(edm(), nfe=5)):
        free = as_coefficients(parent)
        assert free.is_stochastic
        for _ in range(20):
            child = mutate(problem, free, rng)
            assert misfit(problem, child) is None
            assert child.nfe == 5
            n_noisy += child.is_stochastic
    assert (n_noisy > 0) is is_on
