"""A start that says its own scale of noise: where it holds, where it is dropped, refusals."""

from dataclasses import replace

import numpy as np
import pytest

from s3search.errors import InvalidSchedule
from s3search.models.gaussian import gaussian_distance
from s3search.processes import edm, flow, vp_linear
from s3search.schedules import published
from s3search.schedules.retime import retime
from s3search.schedules.schedule import Schedule, Start
from s3search.schedules.stretch import fitted
from s3search.search.edit.draft import draft_of, finished
from s3search.search.edit.restart import begun_lower
from s3search.search.space import Problem, load_space
from s3search.search.trial import schedule_key
from s3search.solvers.coefficients import as_coefficients
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import run_plan, sample
from tests.support.helpers import gaussian, max_abs, noise

_PROCESS = edm()
_PLAIN = published.dpmpp_2m(_PROCESS, nfe=4)


def _begun(schedule: Schedule, scale: float) -> Schedule:
    return schedule.changed(start=Start(noise_scale=scale))


def test_the_run_begins_with_noise_of_that_scale() -> None:
    scaled, denoiser = _begun(_PLAIN, 100.0), gaussian(_PROCESS)
    found = sample(denoiser, compile_plan(scaled), noise())
    assert max_abs(found - run_plan(denoiser, compile_plan(_PLAIN), 100.0 * noise())) < 1e-12
    assert compile_plan(scaled).to_dict()["noise_scale"] == 100.0
    assert compile_plan(_PLAIN).to_dict()["noise_scale"] == _PROCESS.sigma(_PLAIN.times[0])


def test_it_is_part_of_the_schedule_and_of_its_images() -> None:
    scaled = _begun(_PLAIN, 100.0)
    assert Schedule.from_dict(scaled.to_dict()) == scaled
    assert "noise_scale" not in _PLAIN.to_dict()["start"]
    assert scaled.id != _PLAIN.id
    assert schedule_key(scaled) != schedule_key(_PLAIN)
    same = _begun(_PLAIN, _PROCESS.sigma(_PLAIN.times[0]))
    assert schedule_key(same) == schedule_key(_PLAIN)
    for scale in (99.0, 101.0):
        free = compile_plan(as_coefficients(_begun(_PLAIN, scale)))
        assert free.noise_scale == scale


def test_the_gaussian_in_closed_form_begins_there_too() -> None:
    mean, values = np.zeros(4), np.array([0.5, 0.2, 0.1, 0.05])
    plain, scaled = (
        gaussian_distance(compile_plan(own), mean, values)[0]
        for own in (_PLAIN, _begun(_PLAIN, 160.0))
    )
    table = replace(compile_plan(_PLAIN), noise_scale=160.0)
    assert scaled == gaussian_distance(table, mean, values)[0] != plain


def test_another_process_makes_the_same_trajectory() -> None:
    source = vp_linear()
    schedule = _begun(published.ddim(source, nfe=5), 1.25)
    moved = retime(schedule, edm())
    first, t = schedule.times[0], moved.times[0]
    assert moved.start.noise_scale == pytest.approx(1.25 / source.alpha(first) * edm().alpha(t))


def test_it_holds_for_its_first_time_alone() -> None:
    scaled, rng = _begun(_PLAIN, 100.0), np.random.default_rng(0)
    problem = Problem.found(load_space("full", {"nfe": [4]}), _PROCESS)
    kept = finished(problem, draft_of(scaled), 4, rng)
    assert kept.start.noise_scale == 100.0
    draft = draft_of(scaled)
    draft.times[0] *= 0.99
    assert draft.noise_scale is None
    assert begun_lower(scaled, 1) is None
    narrower = fitted(scaled, edm(sigma_max=40.0))
    assert narrower.schedule.start.noise_scale is None
    assert any("noise" in note for note in narrower.notes)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf")])
def test_what_is_no_scale_is_refused(scale: float) -> None:
    data = published.flow_euler(flow(), nfe=3).to_dict()
    data["start"]["noise_scale"] = scale
    with pytest.raises(InvalidSchedule, match=r"start\.noise_scale"):
        Schedule.from_dict(data)
