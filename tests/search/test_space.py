"""Spaces: presets, overrides, and the errors that a wrong one gives."""

import re
from pathlib import Path

import numpy as np
import pytest

from s3search.errors import InvalidConfig
from s3search.processes import edm, flow, vp_discrete
from s3search.rules import Prediction
from s3search.schedules import published
from s3search.schedules.schedule import Schedule, StartKind
from s3search.search.edit.draft import misfit, random_schedule
from s3search.search.space import (
    MutationRates,
    Problem,
    SpaceConfig,
    load_space,
    parse_space,
    preset_names,
)

README = Path(__file__).resolve().parents[2] / "search_spaces" / "README.md"


@pytest.mark.parametrize("name", ["full", "usf", "timesteps"])
def test_presets_are_found_by_name_and_take_overrides(name: str) -> None:
    assert name in preset_names()
    space = load_space(name, {"nfe": [5], "mutation": {"start": 0.0}})
    assert space.nfe == (5,)
    assert space.mutation == MutationRates(start=0.0)


def test_a_file_is_named_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('predictions = ["data"]\n[mutation]\ntimes = 9.0\n')
    space = load_space(path, {"mutation": {"end": 0.0}})
    assert space.predictions == (Prediction.DATA,)
    assert (space.mutation.times, space.mutation.end) == (9.0, 0.0)


def test_an_unknown_preset_names_the_presets_and_the_nearest() -> None:
    with pytest.raises(InvalidConfig, match=r"full, timesteps, usf; did you mean 'timesteps'"):
        load_space("timestep")


def test_unreadable_files_are_configuration_errors(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="cannot be read"):
        load_space(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("orders = [")
    with pytest.raises(InvalidConfig, match="cannot be read as TOML"):
        load_space(tmp_path / "bad.toml")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"order": [2]}, "space.order: unknown key; did you mean 'orders'?"),
        ({"mutation": {"time": 1}}, "mutation.time: unknown key; did you mean 'times'?"),
        ({"orders": [5]}, "orders.0: Input should be less than or equal to 4 (found 5)"),
        ({"orders": []}, "orders: "),
        ({"orders": [2, 2]}, "orders: names one choice twice: 2, 2"),
        ({"end_sigma": [0.1, 0.01]}, "space: end_sigma: need 0 < low <= high, found [0.1, 0.01]"),
        ({"end_sigma": [0.0, 0.01]}, "end_sigma: need 0 < low"),
        ({"correctors": ["implicitly"]}, "correctors.0: "),
        ({"min_gap": float("nan")}, "min_gap: "),
        ({"predictions": ["v3"]}, "predictions: 'v3' is not possible at every step"),
        ({"start_points": [-2]}, "start_points: must have -1"),
        ({"dc_ratio": [1.5, 0.5]}, "dc_ratio: need low <= high, found [1.5, 0.5]"),
        ({"jump_sigma": [0.1, 5.0]}, "jump_sigma: need twice end_sigma's 0.1 <= low"),
        ({"solvers": ["deis"]}, "solvers: must have 'taylor'"),
        ({"beta": [0.0, 1.0]}, "beta: need 0 < low <= high <= 1, found [0.0, 1.0]"),
        ({"gamma": [0.5, 1.5]}, "gamma: need 0 <= low <= high <= 1, found [0.5, 1.5]"),
    ],
)
def test_wrong_fields_are_named_with_their_path(fields: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidConfig, match=re.escape(message)):
        parse_space(fields)


def test_every_field_is_in_the_readme_with_its_default() -> None:
    documented = set(re.findall(r"^\| `(\w+)` \|", README.read_text(), re.MULTILINE))
    fields = {*SpaceConfig.model_fields, *MutationRates.model_fields, *preset_names()}
    assert fields <= documented
    assert documented <= fields


def test_the_mean_image_start_is_drawn_only_where_an_image_was_given() -> None:
    space = load_space("usf", {"starts": ["average_x0"], "nfe": [4]})
    without, rng = Problem(space, edm()), np.random.default_rng(0)
    assert random_schedule(without, 4, rng).start.kind is StartKind.NETWORK
    with_image = Problem.found(space, edm(), mean_image=np.full((1, 2, 2), 0.5))
    drawn = random_schedule(with_image, 4, rng)
    assert drawn.start.image == (((0.5, 0.5), (0.5, 0.5)),)
    assert drawn.nfe == 4
    assert misfit(with_image, drawn) is None
    assert misfit(without, drawn) is not None


def test_a_flow_has_no_unit_noise_start() -> None:
    space = load_space("usf", {"starts": ["unit_noise", "zero_x0"]})
    assert Problem(space, flow()).starts_at(1.0) == (StartKind.ZERO_X0,)


def test_ends_where_the_network_is_called_stay_at_trained_levels() -> None:
    process = vp_discrete("scaled_linear", beta_start=0.00085, beta_end=0.012)
    problem = Problem(load_space("usf"), process)
    _, highest = problem.end_lams(called=True)
    assert process.time_of_lam(highest) == pytest.approx(0.0, abs=1e-9)
    _, beyond = problem.end_lams(called=False)
    assert beyond > highest


def test_membership_names_the_field_at_fault() -> None:
    problem = Problem(load_space("timesteps", {"nfe": [4]}), edm())
    good = random_schedule(problem, 4, np.random.default_rng(0))
    assert misfit(problem, good) is None
    elsewhere = Problem(problem.space, flow())
    assert (misfit(elsewhere, good) or "").startswith("process: ")
    assert misfit(problem, random_schedule(problem, 5, np.random.default_rng(0))) == (
        "nfe: 5 is not one of [4]"
    )
    unipc = published.unipc(edm(), nfe=4)
    assert misfit(problem, unipc) == "steps[0]: corrector is not a choice of the space"
    late = Schedule(process=edm(), times=(40.0, *good.times[1:]), steps=good.steps)
    assert "times[0]: 40.0 is no beginning of the space: [80.0]" in (misfit(problem, late) or "")
    close = good.times[1] * 0.999
    times = (good.times[0], good.times[1], close, *good.times[3:])
    crowded = Schedule(process=edm(), times=times, steps=good.steps)
    assert "at least 0.05 in lam" in (misfit(problem, crowded) or "")
    told = published.with_network_times(good, [*good.times[:-2], good.times[-2] * 1.1])
    assert misfit(problem, told) == "steps[2].network_time: is not a choice of the space"
    mixed = published.dualfast(good, [0.0, 0.0, 0.0, 0.1])
    assert misfit(problem, mixed) == "steps[3].compensation: is not a choice of the space"


@pytest.mark.parametrize("name", ["usf", "timesteps"])
def test_the_full_space_contains_the_others(name: str) -> None:
    rng = np.random.default_rng(1)
    for process in (edm(), flow(), vp_discrete()):
        full, other = (Problem(load_space(each), process) for each in ("full", name))
        for nfe in (1, 3, 6):
            assert misfit(full, random_schedule(other, nfe, rng)) is None


def test_published_solvers_belong_to_the_usf_space() -> None:
    space = load_space("usf", {"correctors": ["none", "pseudo", "implicit"]})
    problem = Problem(space, edm())
    found = {
        name: misfit(problem, schedule)
        for name, schedule in published.baselines(edm(), 6).items()
        if "DPM-Solver++(2S)" in name or "3M" in name or "UniPC" in name or "Heun" in name
    }
    assert found
    assert not {name: why for name, why in found.items() if why is not None}
