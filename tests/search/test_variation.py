"""Whatever is drawn, mutated or crossed is a valid schedule of the space with the exact NFE."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s3search.errors import InvalidSchedule
from s3search.models.statistics import GaussianStatistics, gaussian_statistics
from s3search.processes import (
    NoiseProcess,
    VpDiscrete,
    edm,
    flow,
    vp_cosine,
    vp_discrete,
    vp_linear,
)
from s3search.rules import (
    Adams,
    Bidirectional,
    EmsStatistics,
    Momentum,
    Prediction,
    SearchedRule,
    Taylor,
    UniPC,
    Velocity,
    level,
    solvers,
)
from s3search.rules.compensation import EarlierCall, Interpolation
from s3search.schedules import published
from s3search.schedules.published.baselines import published_solvers
from s3search.schedules.schedule import Corrector, CorrectorKind, Schedule, StartKind, Step
from s3search.schedules.spacing import End
from s3search.search.edit.draft import draft_of, finished, misfit, random_schedule
from s3search.search.edit.network_time import Shift
from s3search.search.edit.recipe import choice_of, corrector_rule, fitted, solver_of, step_of
from s3search.search.edit.variation import crossover, migrate, mutate
from s3search.search.space import Problem, SpaceConfig, load_space
from s3search.solvers.plan import compile_plan

PROCESSES: dict[str, NoiseProcess] = {
    "edm": edm(),
    "flow": flow(),
    "vp_linear": vp_linear(),
    "vp_cosine": vp_cosine(),
    "vp_discrete": vp_discrete(),
    "vp_discrete scaled": vp_discrete("scaled_linear", beta_start=0.00085, beta_end=0.012),
    "vp_discrete cosine": vp_discrete("cosine"),
}
WIDE = load_space(
    "usf",
    {
        "correctors": ["none", "pseudo", "implicit"],
        "relaxations": [*load_space("usf").relaxations, "scale", "unipc-bh2"],
    },
)
FOUND: dict[str, dict[str, Any]] = {"wide": {"mean_image": np.zeros((1, 2, 2))}}
SPACES: dict[str, SpaceConfig] = {
    "wide": WIDE,
    "usf": load_space("usf"),
    "timesteps": load_space("timesteps"),
    "full": load_space("full"),
    "noisy": load_space(
        "full", {"noise": {"eta": [0, 1], "gamma": [0.1, 0.9], "s_noise": [0.9, 1.1]}}
    ),
    "gamma alone": load_space("usf", {"noise": {"gamma": [0, 1]}}),
    "flow_eta": load_space("full", {"noise": {"flow_eta": [0, 1], "sde": [0, 1]}}),
    "full alone": load_space("full", {"families": [], "correctors": ["none", "implicit"]}),
    "no published steps": load_space("usf", {"families": [], "orders": [2, 3]}),
}
BASELINES: dict[tuple[str, int, bool], Sequence[Schedule]] = {}


def baselines_of(name: str, nfe: int, *, noise: bool = False) -> Sequence[Schedule]:
    if (name, nfe, noise) not in BASELINES:
        found = [each.schedule for each in published_solvers(PROCESSES[name], nfe, noise=noise)]
        stochastic = [schedule for schedule in found if schedule.is_stochastic]
        BASELINES[name, nfe, noise] = stochastic or found
    return BASELINES[name, nfe, noise]


def ems_of(process: NoiseProcess) -> EmsStatistics:
    """Mild statistics from the noisy end, or near it, to the end levels of the spaces."""
    n = 60
    lam = np.linspace(max(process.lam(process.time_range[1]), -6.0), 6.0, n + 1)[
        :, None, None, None
    ]
    pixel = np.linspace(0.0, 0.3, 4).reshape(1, 2, 2)
    return EmsStatistics(
        lam_start=float(lam[0, 0, 0, 0]),
        lam_end=6.0,
        l=1 / (1 + np.exp(lam + pixel)),
        s=0.05 * np.sin(lam) - 0.1 * pixel,
        b=0.02 * np.cos(lam - pixel),
    )


def gaussian_of(seed: int = 0) -> GaussianStatistics:
    """A Gaussian over 2x2 images."""
    images = torch.randn((50, 1, 2, 2), generator=torch.Generator().manual_seed(seed)).double()
    return gaussian_statistics([0.3 * images + 0.1], 3)


EMS = {name: ems_of(process) for name, process in PROCESSES.items()}


def problem_of(space: str, process: NoiseProcess, **found: Any) -> Problem:
    """A space with what belongs to it, for a process."""
    return Problem.found(SPACES[space], process, **FOUND.get(space, {}), **found)


def check(
    problem: Problem, schedule: Schedule, nfe: int, ems: EmsStatistics | None = None
) -> None:
    assert schedule.nfe == nfe
    assert misfit(problem, schedule) is None
    assert Schedule.from_dict(schedule.to_dict()).id == schedule.id
    plan = compile_plan(schedule, ems)
    assert plan.nfe == nfe
    if isinstance(schedule.process, VpDiscrete):
        assert min(plan.network_times) > -1e-3  # never below the first training index
    assert np.isfinite(plan.p).all() and np.isfinite(plan.q).all()


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    process=st.sampled_from(list(PROCESSES)),
    space=st.sampled_from(list(SPACES)),
    nfe=st.integers(1, 10),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_mutated_and_crossed_schedules_lie_in_the_space(
    process: str, space: str, nfe: int, seed: int
) -> None:
    rng, within, ems = np.random.default_rng(seed), SPACES[space], EMS[process]
    found: dict[str, Any] = {}
    if Prediction.V3 in within.predictions and seed % 4:
        found["ems"] = ems.nodes
    if within.jump_sigma is not None and seed % 3:
        found["gaussian"] = gaussian_of()
    problem = problem_of(space, PROCESSES[process], **found)
    baselines = baselines_of(process, nfe, noise=within.noise.is_on)
    drawn = random_schedule(problem, nfe, rng)
    check(problem, drawn, nfe, ems)
    parents = [drawn, baselines[int(rng.integers(len(baselines)))]]
    for _ in range(4):
        mutated = mutate(problem, parents[-1], rng)
        check(problem, mutated, nfe, ems)
        crossed = crossover(problem, mutated, parents[int(rng.integers(len(parents)))], rng)
        check(problem, crossed, nfe, ems)
        parents += [mutated, crossed]
    other = int(rng.integers(1, 11))
    check(problem, migrate(problem, parents[-1], other, rng), other, ems)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=list(PROCESSES))
def test_a_schedule_of_the_space_survives_the_draft_unchanged(process: NoiseProcess) -> None:
    rng, problem = np.random.default_rng(1), problem_of("wide", process)
    for nfe in range(1, 9):
        schedule = random_schedule(problem, nfe, rng)
        assert finished(problem, draft_of(schedule), nfe, rng).id == schedule.id


def test_children_differ_from_their_parents() -> None:
    rng = np.random.default_rng(2)
    problem = Problem(load_space("usf"), edm())
    a, b = (random_schedule(problem, 5, rng) for _ in range(2))
    for _ in range(200):
        assert mutate(problem, a, rng).id != a.id
        assert crossover(problem, a, b, rng).id not in (a.id, b.id)


def test_a_mutation_keeps_the_times_that_it_does_not_move() -> None:
    rates = {"times": 0, "end": 0, "move": 0, "start": 0, "end_rule": 0}
    problem = Problem(load_space("usf", {"mutation": rates}), vp_linear())
    parent = random_schedule(problem, 6, np.random.default_rng(3))
    children = [mutate(problem, parent, np.random.default_rng(i)) for i in range(50)]
    assert all(child.times == parent.times for child in children)


def test_a_fixed_solver_is_never_mutated() -> None:
    problem = Problem(load_space("timesteps"), edm())
    schedule = published.unipc(edm(), nfe=6)
    rng = np.random.default_rng(4)
    for _ in range(50):
        schedule = mutate(problem, schedule, rng)
        first, *rest = [step.predictor for step in draft_steps(schedule)]
        assert isinstance(first, Taylor) and first.order == 1
        assert all(isinstance(rule, Taylor) and rule.order == 2 for rule in rest)


def draft_steps(schedule: Schedule) -> Sequence[Step]:
    """The steps before one to the clean end."""
    return schedule.steps[: len(schedule.steps) - (schedule.times[-1] == 0.0)]


def test_every_choice_is_reached_by_mutation() -> None:
    rng, problem = np.random.default_rng(5), problem_of("wide", edm())
    schedule = published.unipc(edm(), nfe=5)
    orders, rules, starts, kinds, ends = set(), set(), set(), set(), set()
    for _ in range(600):
        schedule = mutate(problem, schedule, rng)
        starts.add(schedule.start.kind)
        ends.add(schedule.times[-1] == 0.0)
        for step in schedule.steps:
            rules.add(type(step.predictor))
            kinds.add(step.corrector.kind if step.corrector else None)
            if isinstance(step.predictor, Taylor):
                orders.add(step.predictor.order)
    assert orders == {1, 2, 3, 4}
    assert rules == {Taylor, UniPC}
    assert starts == set(StartKind)
    assert kinds == {None, CorrectorKind.PSEUDO, CorrectorKind.IMPLICIT}
    assert ends == {True, False}


@pytest.mark.parametrize("process", [edm(), flow()], ids=["edm", "flow"])
def test_every_family_is_drawn_and_reached_by_mutation(process: NoiseProcess) -> None:
    problem, rng = problem_of("full alone", process), np.random.default_rng(8)
    expected = set(solvers().values()) - (set() if process == flow() else {Velocity})
    drawn = [random_schedule(problem, 6, rng) for _ in range(60)]
    assert {solver for schedule in drawn for solver in solvers_of(schedule)} == expected
    mutated, schedule = [], published.dpmpp_2m(process, nfe=6)
    for _ in range(800):
        schedule = mutate(problem, schedule, rng)
        mutated.append(schedule)
    assert {solver for schedule in mutated for solver in solvers_of(schedule)} == expected
    rules = [step.predictor for schedule in mutated for step in schedule.steps]
    assert len({rule.beta for rule in rules if isinstance(rule, Momentum)}) > 10
    assert len({rule.gamma for rule in rules if isinstance(rule, Bidirectional)}) > 10
    for schedule in [*drawn, *mutated]:
        for step in schedule.steps:
            solver = solver_of(choice_of(step).published)
            has_corrector = isinstance(step.predictor, Taylor) or (
                solver is not None and solver.has_corrector
            )
            assert step.corrector is None or has_corrector


def solvers_of(schedule: Schedule) -> set[type[SearchedRule] | None]:
    """The solvers of the steps."""
    return {
        Taylor if isinstance(step.predictor, Taylor) else solver_of(choice_of(step).published)
        for step in schedule.steps
    }


def everything(process: str) -> Problem:
    """All that there is but published steps, with all statistics."""
    found = {"ems": EMS[process].nodes, "gaussian": gaussian_of()}
    return problem_of("full alone", PROCESSES[process], **found)


@pytest.mark.parametrize("name", PROCESSES)
def test_steps_of_all_families_survive_the_draft_unchanged(name: str) -> None:
    rng, problem = np.random.default_rng(9), everything(name)
    for nfe in (*range(1, 11), *range(3, 11)):
        schedule = random_schedule(problem, nfe, rng)
        assert finished(problem, draft_of(schedule), nfe, rng).id == schedule.id


@pytest.mark.parametrize("name", ["edm", "vp_discrete scaled"])
def test_everything_beside_the_families_is_drawn_and_reached_by_mutation(name: str) -> None:
    process, rng, problem = PROCESSES[name], np.random.default_rng(10), everything(name)
    drawn = [random_schedule(problem, 6, rng) for _ in range(80)]
    mutated, schedule = [], published.dpmpp_2m(process, nfe=6)
    for _ in range(500):
        schedule = mutate(problem, schedule, rng)
        mutated.append(schedule)
    for schedules in (drawn, mutated):
        steps = [step for schedule in schedules for step in schedule.steps]
        taylor = [step.predictor for step in steps if isinstance(step.predictor, Taylor)]
        assert {rule.start for rule in taylor} == {-1, -2, -3}
        assert {rule.prediction for rule in taylor} == set(Prediction)
        assert len({c.ratio for c in _compensations(steps, Interpolation)}) > 5
        assert len({c.coefficient for c in _compensations(steps, EarlierCall)}) > 5
        told = [step.network_time for step in steps if step.network_time is not None]
        assert len(set(told)) > 10
        landed = {s.times[0] for s in schedules if s.start.jump is not None}
        assert len(landed) > 5
        assert any(schedule.start.jump is None for schedule in schedules)
    assert any(schedule.start.network_time is not None for schedule in [*drawn, *mutated])
    shifts = [s.lam for m in mutated for s in shifts_of(m)]
    assert max(map(abs, shifts)) <= 0.5 + 1e-6
    assert min(shifts) < -0.1 < 0.1 < max(shifts)


def _compensations(steps: Sequence[Step], kind: type[Any]) -> Sequence[Any]:
    return [step.compensation for step in steps if isinstance(step.compensation, kind)]


def shifts_of(schedule: Schedule) -> Sequence[Shift]:
    """The shifts of all points."""
    draft = draft_of(schedule)
    found = [draft.first_shift, *(choice.shift for choice in draft.choices)]
    return [shift for shift in found if shift is not None]


def test_a_shift_moves_with_its_point_and_yields_to_what_cannot_stand_beside_it() -> None:
    only = {"times": 0, "end": 1, "move": 0, "start": 0, "end_rule": 0, "network_time": 0}
    off = dict.fromkeys(("prediction", "order", "relaxation", "estimation", "corrector"), 0)
    off |= dict.fromkeys(("solver", "start_point", "compensation"), 0)
    space = load_space("full", {"mutation": only | off, "correctors": ["none"]})
    problem = Problem(space, edm())
    plain = published.dpmpp_2m(edm(), nfe=5)
    told = [None, *(t * 1.2 for t in plain.times[1:-1])]
    parent = published.with_network_times(plain, told)
    assert misfit(problem, parent) is None
    child = mutate(problem, parent, np.random.default_rng(0))
    assert child.times != parent.times
    assert [s.lam for s in shifts_of(child)] == pytest.approx([-math.log(1.2)] * 4)
    far = published.with_network_times(plain, [None, *(t * 3 for t in plain.times[1:-1])])
    assert misfit(problem, far) == "steps[0].network_time: is not a choice of the space"
    near = finished(problem, draft_of(far), 5, np.random.default_rng(0))
    assert [s.lam for s in shifts_of(near)] == pytest.approx([-0.5] * 4)
    draft = draft_of(parent)
    draft.choices[2] = replace(draft.choices[2], compensation=Interpolation(ratio=1.1))
    mixed = finished(problem, draft, 5, np.random.default_rng(0))
    assert not shifts_of(mixed)
    assert mixed.steps[2].compensation == Interpolation(ratio=1.1)
    without = Problem(load_space("usf"), edm())
    assert finished(without, draft_of(parent), 5, np.random.default_rng(0)).id == plain.id


def test_published_singlestep_and_compensated_solvers_belong_to_the_full_space() -> None:
    problem = Problem(load_space("full", {"families": []}), edm())
    singlestep = [published.dpmpp_2s(edm(), nfe=6), published.dpmpp_3s(edm(), nfe=6)]
    compensated = [
        published.with_ratios(published.dpmpp_2m(edm(), nfe=6), [1, 1, 1.1, 0.9, 1, 1.2]),
        published.dualfast(published.dpmpp_2m(edm(), nfe=6), published.falling(0.4, 6)),
    ]
    for schedule in (*singlestep, *compensated):
        assert misfit(problem, schedule) is None
        assert finished(problem, draft_of(schedule), 6, np.random.default_rng(0)).id == schedule.id
    narrow = {"families": [], "start_points": [-1], "compensations": []}
    plain = Problem(load_space("full", narrow), edm())
    assert misfit(plain, singlestep[0]) == "steps[1]: start is not a choice of the space"
    assert misfit(plain, compensated[0]) == ("steps[2].compensation: is not a choice of the space")
    wild = published.with_ratios(published.dpmpp_2m(edm(), nfe=6), [1, 1, 2.0, 1, 1, 1])
    assert misfit(problem, wild) == "steps[2].compensation: is not a choice of the space"


def test_v3_steps_need_the_statistics_of_the_space_and_two_nodes() -> None:
    problem, ems = Problem(load_space("full"), edm()), EMS["edm"]
    narrow = load_space("full", {"end_sigma": [0.0025, 0.1]})
    with_ems = Problem(narrow, edm(), ems=ems.nodes)
    inside = published.dpm_solver_v3(edm(), ems, nfe=5, end=End(sigma=0.01))
    draft = draft_of(inside)
    back = finished(with_ems, draft, 5, np.random.default_rng(0))
    assert {step.predictor.needs_ems for step in back.steps} == {True}
    assert back.statistics == inside.statistics
    assert misfit(with_ems, back) is None
    assert misfit(problem, back) == "statistics: are not those of the space"
    without = finished(problem, draft_of(inside), 5, np.random.default_rng(0))
    assert without.statistics is None
    assert not any(step.predictor.needs_ems for step in without.steps)
    draft = draft_of(back)
    draft.place(3, draft.lams()[2] + 0.06)  # less than half an interval
    close = finished(with_ems, draft, 5, np.random.default_rng(0))
    assert not close.steps[2].predictor.needs_ems
    compile_plan(close, ems)


def test_a_jump_lands_in_its_range_with_the_gaussian_of_the_space() -> None:
    plain, rng = Problem(load_space("full"), edm()), np.random.default_rng(11)
    problem = Problem.found(load_space("full"), edm(), gaussian=gaussian_of())
    assert problem.jump is not None
    assert problem.jump.from_time == 80.0
    assert len(problem.jump.eigenvalues) == 3
    late = [10.0, 3.0, 0.5, 0.01]
    base = Schedule(process=edm(), times=late, steps=published.ddim_steps(3))
    jumped = published.with_jump(base, problem.jump)
    assert misfit(problem, jumped) is None
    assert finished(problem, draft_of(jumped), 3, rng).id == jumped.id
    assert misfit(plain, jumped) == "start.jump: is not a choice of the space"
    assert finished(plain, draft_of(jumped), 3, rng).times[0] == 80.0
    other = published.with_jump(base, gaussian_of(1).jump(80.0, 8))
    assert misfit(problem, other) == "start.jump: is not a choice of the space"
    low = Schedule(process=edm(), times=[1.0, 0.5, 0.1, 0.01], steps=published.ddim_steps(3))
    low = published.with_jump(low, problem.jump)
    assert "times[0]: a jump lands" in (misfit(problem, low) or "")
    assert finished(problem, draft_of(low), 3, rng).times[0] == pytest.approx(2.0)
    silent = load_space("full", {"starts": ["zero_x0"]})
    no_network = Problem.found(silent, edm(), gaussian=gaussian_of())
    assert finished(no_network, draft_of(jumped), 3, rng).start.jump is None


def test_a_step_gives_up_points_before_its_family() -> None:
    problem = Problem(load_space("full", {"families": []}), edm())
    levels = tuple(level(edm(), t) for t in (80.0, 10.0, 1.0))
    rule = Momentum(order=4, beta=0.5, points=(-5, -4, -3, -2, -1))
    kept = fitted(problem, rule, levels[:2], levels[2])
    assert kept == Momentum(order=2, beta=0.5, points=(-2, -1))
    assert fitted(problem, rule, levels[:1], levels[1]) is None
    assert fitted(Problem(load_space("usf"), edm()), rule, levels[:2], levels[2]) is None


def test_crossover_blends_times_between_the_parents() -> None:
    problem = Problem(load_space("timesteps", {"end_rules": ["stop"]}), edm())
    rng = np.random.default_rng(6)
    a, b = (random_schedule(problem, 4, rng) for _ in range(2))
    for _ in range(50):
        child = crossover(problem, a, b, rng)
        if not set(child.times[1:]) & {*a.times, *b.times}:
            pairs = zip(a.times[1:], child.times[1:], b.times[1:], strict=True)
            shares = [math.log(c / x) / math.log(y / x) for x, c, y in pairs]
            assert np.allclose(shares, shares[0])
            assert 0 < shares[0] < 1
            return
    pytest.fail("no child was blended")


def test_parents_of_different_nfe_cannot_be_crossed() -> None:
    rng, problem = np.random.default_rng(7), problem_of("wide", edm())
    a, b = (random_schedule(problem, nfe, rng) for nfe in (3, 4))
    with pytest.raises(InvalidSchedule, match="found 'edm' with 3 and 'edm' with 4"):
        crossover(problem, a, b, rng)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_corrector_recipe_gives_unipcs_corrector(order: int) -> None:
    for step in published.unipc_steps(6, order=order):
        if step.corrector is not None:
            assert corrector_rule(step.predictor) == step.corrector.rule


def test_corrector_recipe_gives_heuns_corrector() -> None:
    trapezoid = Adams(start=-2, points=(-2, -1))
    assert corrector_rule(Adams()) == trapezoid


def test_corrector_recipe_shifts_points_and_raises_the_order() -> None:
    # FACTS: order 3 whose first derivative uses one point: points move by -1 and -1 joins them
    predictor = Taylor.model_validate(
        {
            "prediction": "noise",
            "order": 3,
            "derivatives": [
                {"points": [-2], "relaxation": {"kind": "linear", "coefficient": 0.2}},
                {"points": [-3, -2]},
            ],
        }
    )
    rule = corrector_rule(predictor)
    assert isinstance(rule, Taylor)
    assert (rule.start, rule.order) == (-2, 4)
    assert [d.points for d in rule.derivatives] == [(-3, -1), (-4, -3, -1), (-4, -3, -1)]
    assert all(d.relaxation is None for d in rule.derivatives)
    step = Step(predictor=predictor, corrector=Corrector(rule=rule))
    assert step_of(choice_of(step)) == step
