"""Noise that a step adds, in words, pictures and numbers."""

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from s3search.processes import edm
from s3search.rules import NoiseKind, StepNoise
from s3search.schedules import published
from s3search.schedules.schedule import Schedule, Start
from s3search.search.predictor.features import Standard, compact, flat, tokens
from s3search.show.dashboard.choices import choice
from s3search.show.pictures import draw_schedule, schedule_figure, terminal_drawing, time_lines
from s3search.solvers.noise_shares import noise_shares
from s3search.study.optuna.summary import DISTRIBUTIONS, summary

_ETA = StepNoise(kind=NoiseKind.ETA, amount=0.4, scale=1.05)
_GAMMA = StepNoise(kind=NoiseKind.GAMMA, amount=0.5)


def _noisy(*noises: StepNoise | None, plain: Schedule | None = None) -> Schedule:
    plain = plain or published.dpmpp_2m(edm(), nfe=4)
    left = [*noises, *[None] * (plain.n_steps - len(noises))]
    steps = [
        step.model_copy(update={"noise": noise})
        for step, noise in zip(plain.steps, left, strict=True)
    ]
    return plain.changed(steps=steps)


def test_words_and_pictures_say_the_noise_of_a_step(tmp_path: Path) -> None:
    schedule = _noisy(None, _ETA, _GAMMA)
    lines = [line.step for line in time_lines(schedule)]
    assert lines[1].endswith(" + noise eta 0.4, s_noise 1.05")
    assert lines[2].endswith(" + noise gamma 0.5")
    assert "noise" not in lines[0]
    assert "+ noise gamma 0.5" in schedule.describe()
    assert choice(schedule.steps[1]).endswith(" + noise")
    console = Console(width=160)
    with console.capture() as shown:
        console.print(terminal_drawing(schedule))
    assert "+ noise eta 0.4" in shown.get()
    texts = [text.get_text() for axes in schedule_figure(schedule).axes for text in axes.texts]
    assert [text.split("\n")[-1] for text in texts if "noise" in text] == [
        "+ noise 0.4",
        "+ noise 0.5",
    ]
    draw_schedule(schedule, tmp_path / "noisy.png")
    assert (tmp_path / "noisy.png").read_bytes().startswith(b"\x89PNG")


def test_noise_of_the_start_is_said() -> None:
    start = Start(noise=StepNoise(kind=NoiseKind.GAMMA, amount=0.2))
    schedule = published.dpmpp_2m(edm(), nfe=4).changed(start=start)
    assert "Start: noise gamma 0.2 is added to the first state." in schedule.describe()


def test_the_share_of_fresh_noise_is_that_of_the_levels_variance() -> None:
    assert noise_shares(published.dpmpp_2m(edm(), nfe=4)) == (0.0,) * 4
    shares = noise_shares(_noisy(StepNoise(kind=NoiseKind.GAMMA, amount=1.0), None, _GAMMA))
    # gamma 0.5 leaves a quarter of the variance
    assert shares == pytest.approx((1.0, 0.0, 0.75, 0.0))
    scaled = StepNoise(kind=NoiseKind.GAMMA, amount=0.5, scale=1.1)
    assert noise_shares(_noisy(scaled))[0] == pytest.approx(0.75 * 1.1**2)
    corrected = _noisy(_GAMMA, _GAMMA, plain=published.unipc(edm(), nfe=4))
    assert noise_shares(corrected)[:2] == pytest.approx((0.75, 0.75))
    start = Start(noise=StepNoise(kind=NoiseKind.GAMMA, amount=0.2))
    assert noise_shares(_noisy(_GAMMA).changed(start=start))[0] == pytest.approx(0.75)


def test_a_rule_with_noise_of_its_own_has_its_share() -> None:
    schedule = published.dpmpp_2m_sde(edm(), nfe=4)
    fall = [b / a for a, b in zip(schedule.times, schedule.times[1:], strict=False)]
    expected = [1.0 - ratio**2 for ratio in fall[:-1]]
    assert noise_shares(schedule)[:3] == pytest.approx(expected)


def test_a_predictor_sees_noise_and_nothing_new_without_it() -> None:
    plain = [published.dpmpp_2m(edm(), nfe=n) for n in (4, 5, 6)]
    noisy = [_noisy(_GAMMA, plain=each) for each in plain]
    for features in (flat, compact):
        rows = features(plain)
        assert (features(noisy) != rows).any()
        assert np.array_equal(Standard(rows)(features(noisy)), Standard(rows)(rows))
    changed = np.flatnonzero((tokens(noisy[0]) != tokens(plain[0])).any(0))
    assert len(changed) == 1
    assert tokens(noisy[0])[:, changed[0]] == pytest.approx([0.75, 0.0, 0.0, 0.0])


def test_optuna_is_told_the_mean_share_of_schedules_with_noise_alone() -> None:
    assert "noise_share" not in summary(published.dpmpp_2m(edm(), nfe=4), is_baseline=True)
    values = summary(_noisy(_GAMMA), is_baseline=False)
    assert values["noise_share"] == pytest.approx(0.75 / 4)
    assert values.keys() == DISTRIBUTIONS.keys()
