"""Any Optuna sampler as a proposer.

A schedule becomes flat parameters, decided one after the other (`_decoded`):

    start, end_rule      categorical, where the space has a choice
    end                  in [0, 1]: where the end level lies in its range of lam
    gap_k                the share of the way left that interval k takes, as a logit relative to
                         equal shares; all zeros are times uniform in lam
    prediction_i, order_i, estimate_i, relaxation_i, corrector_i   categorical, where they apply
    coefficient_i        of the linear (or scale) relaxation of step i
    noise ...            where the space has any (`s3search.search.algorithms.optuna_noise`)

The numbers among them are asked for whether they apply or not, since CMA-ES needs a fixed set of
them.  Implicit correctors are left out: the number of steps follows from the start alone.

The sampler works in an in-memory study of its own, one per nfe.  Telling replays an observation
into it; proposing asks a copy, with a sampler seeded by (seed, number), so that it changes
nothing; the finished trials are the same in both.  A sampler's own time grows with what it was
told, so one that was told `_MOST` forgets those that are neither among the best nor new.
"""

import copy
import importlib.util
import inspect
import logging
import math
import warnings
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

import numpy as np
import optuna

from s3search.errors import InvalidConfig, nearest
from s3search.schedules.schedule import CorrectorKind, Schedule, StartKind
from s3search.schedules.spacing import EndRule
from s3search.search.algorithms.optuna_noise import (
    Parameters,
    decoded_noises,
    noise_params,
    same_noise,
)
from s3search.search.algorithms.sequential import SeedsFirst
from s3search.search.conversation import Setup
from s3search.search.edit.draft import Draft, draft_of, finished, misfit
from s3search.search.edit.recipe import (
    FINISH,
    Choice,
    kind_of,
    possible_estimates,
    possible_orders,
    relaxation_of,
    strength_of,
)
from s3search.search.questions import Measurement
from s3search.search.space import Problem, SpaceConfig
from s3search.search.space.choices import word_of
from s3search.search.trial import Trial, schedule_key, searched

_SHORT_NAMES = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "cmaes": "CmaEsSampler",
    "nsgaii": "NSGAIISampler",
}
_LARGEST_LOGIT = 2.0  # of a gap: a share of 0.88 where equal shares would be one half
_TRIES = 10  # asks until a proposal is new
_MOST = 1000  # observations of one nfe, after which the sampler keeps
_KEPT = 250  # the best, and as many of the newest

Params = dict[str, float | str]
Word = TypeVar("Word", bound=StrEnum | None)


class OptunaProposer(SeedsFirst):
    """The seeds, then what an Optuna sampler suggests; seeds that fit the parameters are told."""

    def __init__(self, sampler: str, setup: Setup) -> None:
        super().__init__(setup)
        self._name = sampler
        with _quiet():
            self._studies = {
                n: optuna.create_study(sampler=make_sampler(sampler, self._seed))
                for n in self._nfe
            }

    def tell(self, measured: Measurement) -> None:
        """Replays the measurement into the sampler, if the parameters can write its schedule."""
        trial, loss = measured.trial, measured.loss
        is_new = self._is_new(trial)
        study = self._studies.get(trial.nfe)
        params = self._encoded(trial.schedule) if is_new and study is not None else None
        if study is None or params is None:
            return
        with _quiet():
            study.enqueue_trial(params)
            asked = study.ask()
            # NOTE: CMA-ES and NSGA-II write a trial's generation while sampling, which Optuna 5
            # puts off until a value is needed; here all values are given
            _ = asked.relative_params
            _decoded(_Asked(asked), self._problem, trial.nfe)
            if loss is None or not math.isfinite(loss):
                study.tell(asked, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(asked, loss)
            if len(study.get_trials(deepcopy=False)) >= _MOST:
                self._studies[trial.nfe] = self._shortened(study)

    def _made(self, number: int, pending: Sequence[Trial], taken: Container[bytes]) -> Trial:
        nfe, rng = self._turn(number)
        with _quiet():
            study = _copied(self._studies[nfe])
            study.sampler = make_sampler(self._name, int(rng.integers(2**31)))
            for _ in range(_TRIES):
                schedule = _decoded(_Asked(study.ask()), self._problem, nfe)
                if schedule_key(schedule) not in taken:
                    return Trial.of(schedule, searched(f"optuna:{self._name}"), number=number)
        return self._random(number, nfe, rng, taken)

    def _shortened(self, study: optuna.Study) -> optuna.Study:
        """The best and the newest trials in a study of their own, in their order."""
        trials = study.get_trials(deepcopy=False)
        measured = [t for t in trials if t.state == optuna.trial.TrialState.COMPLETE]
        best = sorted(measured, key=lambda t: (t.value, t.number))[:_KEPT]
        kept = {t.number for t in (*best, *trials[-_KEPT:])}
        shorter = optuna.create_study(sampler=make_sampler(self._name, self._seed))
        shorter.add_trials([t for t in trials if t.number in kept])
        return shorter

    def _encoded(self, schedule: Schedule) -> Params | None:
        """The parameters that write ``schedule``, or None where they cannot."""
        if misfit(self._problem, schedule) is not None:
            return None
        params = _params_of(schedule, self._problem)
        again = _decoded(_Dictated(params), self._problem, schedule.nfe)
        return params if _alike(again, schedule, self._problem.space) else None


def _copied(study: optuna.Study) -> optuna.Study:
    """A copy that may be asked; it shares the finished trials, which nothing changes."""
    trials = study.get_trials(deepcopy=False)
    return copy.deepcopy(study, {id(trial): trial for trial in trials})


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """The Optuna sampler of a short name or class name; raises `InvalidConfig`."""
    known = [word for word in optuna.samplers.__all__ if word.endswith("Sampler")]
    class_name = _SHORT_NAMES.get(name, name)
    if class_name not in known or class_name == "BaseSampler":
        raise InvalidConfig(
            f"search.algorithm: Optuna has no sampler {name!r}; "
            + nearest(name, [*_SHORT_NAMES, *known])
        )
    sampler_class = getattr(optuna.samplers, class_name)
    parameters = inspect.signature(sampler_class).parameters
    wanted: dict[str, object] = {"seed": seed}
    if class_name == "CmaEsSampler":  # deprecated elsewhere
        wanted["warn_independent_sampling"] = False
    options = {key: value for key, value in wanted.items() if key in parameters}
    try:
        with warnings.catch_warnings():  # who names an experimental sampler wants it
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = sampler_class(**options)
    except TypeError as error:
        raise InvalidConfig(
            f"search.algorithm: {class_name} cannot be made without arguments ({error}); "
            f"use one of {', '.join(_SHORT_NAMES)}"
        ) from error
    if class_name == "CmaEsSampler":
        _require_cmaes()
    assert isinstance(sampler, optuna.samplers.BaseSampler)
    return sampler


def _require_cmaes() -> None:
    if importlib.util.find_spec("cmaes") is None:
        raise InvalidConfig(
            "search.algorithm: 'optuna:cmaes' needs the package cmaes; "
            "install it with: pip install cmaes"
        )


@dataclass(frozen=True, slots=True)
class _Asked:
    """Parameters that a trial suggests."""

    trial: optuna.Trial

    def number(self, name: str, low: float, high: float) -> float:
        return self.trial.suggest_float(name, low, high)

    def word(self, name: str, words: Sequence[str]) -> str:
        return self.trial.suggest_categorical(name, list(words))


@dataclass(frozen=True, slots=True)
class _Dictated:
    """Parameters that are given."""

    params: Params

    def number(self, name: str, low: float, high: float) -> float:
        return min(max(float(self.params[name]), low), high)

    def word(self, name: str, words: Sequence[str]) -> str:
        word = str(self.params[name])
        return word if word in words else words[0]


def _decoded(values: Parameters, problem: Problem, nfe: int) -> Schedule:
    """The schedule that the values write."""
    space, process = problem.space, problem.process
    begins = [f"{t:g}" for t in problem.first_times]
    first = problem.first_times[begins.index(_word(values, "begin", begins))]
    start = _one_of(values, "start", problem.starts_at(first))
    denoises = _one_of(values, "end_rule", space.end_rules) is EndRule.DENOISE
    n = nfe + (start is not StartKind.NETWORK)
    draft = Draft(process, [first], denoises, start, [])
    end = values.number("end", 0.0, 1.0)
    logits = [
        values.number(f"gap_{k}", -_LARGEST_LOGIT, _LARGEST_LOGIT)
        for k in range(1, _most_steps(space, nfe))
    ]
    n_intervals = n - denoises
    if n_intervals:
        low, high = problem.end_lams(called=denoises)
        _lay_times(draft, low + end * (high - low), logits[: n_intervals - 1])
    coefficients = _coefficients(values, space, _most_steps(space, nfe))
    draft.choices = [
        _decoded_choice(values, problem, i, coefficients[i], is_last=i == n - 1)
        if i < n_intervals
        else FINISH
        for i in range(n)
    ]
    noises = decoded_noises(values, space, _most_steps(space, nfe))[:n_intervals]
    for i, noise in enumerate(noises):
        if noise is not None:
            draft.choices[i] = replace(draft.choices[i], noise=noise)
    return finished(problem, draft, nfe, np.random.default_rng(0))  # only to close a shortfall


def _decoded_choice(
    values: Parameters, problem: Problem, i: int, coefficient: float, *, is_last: bool
) -> Choice:
    order = int(
        _word(values, f"order_{i}", [str(o) for o in possible_orders(problem.space, i + 1)])
    )
    prediction = _one_of(values, f"prediction_{i}", problem.predictions)
    first_points, relaxation = 0, None
    if order > 1:
        estimates = [str(m) for m in possible_estimates(problem.space, order)]
        first_points = int(_word(values, f"estimate_{i}_{order}", estimates))
        kind = _one_of(values, f"relaxation_{i}", problem.space.relaxations)
        relaxation = relaxation_of(kind, coefficient)
    corrector = None
    kinds = [c for c in problem.space.correctors if c is not CorrectorKind.IMPLICIT]
    if kinds and not is_last:
        corrector = _one_of(values, f"corrector_{i}", kinds)
    return Choice(
        prediction=prediction,
        order=order,
        first_points=first_points,
        relaxation=relaxation,
        corrector=corrector,
    )


def _params_of(schedule: Schedule, problem: Problem) -> Params:
    """The values that write ``schedule``; what does not apply is 0 or absent."""
    draft, nfe = draft_of(schedule), schedule.nfe
    rule = EndRule.DENOISE if draft.denoises else EndRule.STOP
    params: Params = {"start": draft.start.value, "end_rule": rule.value, "end": 0.5}
    if len(problem.first_times) > 1:
        params["begin"] = f"{draft.times[0]:g}"
    n_most = _most_steps(problem.space, nfe)
    params |= {f"gap_{k}": 0.0 for k in range(1, n_most)}
    params |= {f"coefficient_{i}": 0.0 for i in range(1, n_most)}
    lams = draft.lams()
    if len(lams) > 1:
        low, high = problem.end_lams(called=draft.calls_end)
        if high > low:
            params["end"] = min(max((lams[-1] - low) / (high - low), 0.0), 1.0)
        for k, logit in enumerate(_logits(lams), start=1):
            params[f"gap_{k}"] = min(max(logit, -_LARGEST_LOGIT), _LARGEST_LOGIT)
    for i, choice in enumerate(draft.choices):
        params[f"order_{i}"] = str(choice.order)
        params[f"prediction_{i}"] = choice.prediction.value
        if choice.order > 1:
            params[f"estimate_{i}_{choice.order}"] = str(choice.first_points)
            params[f"relaxation_{i}"] = word_of(kind_of(choice.relaxation))
            params[f"coefficient_{i}"] = strength_of(choice.relaxation)
        params[f"corrector_{i}"] = word_of(choice.corrector)
    return params | noise_params([c.noise for c in draft.choices], problem.space, n_most)


def _alike(a: Schedule, b: Schedule, space: SpaceConfig) -> bool:
    """Whether both have the same steps on times that differ by less than a gap."""
    if a.start.kind is not b.start.kind or len(a.times) != len(b.times):
        return False
    ones, others = draft_of(a), draft_of(b)
    for name in ("denoises", "first_shift", "noise_scale", "jumps"):
        if getattr(ones, name) != getattr(others, name):
            return False
    if not _same_choices(ones.choices, others.choices):
        return False
    differences = (abs(x - y) for x, y in zip(ones.lams(), others.lams(), strict=True))
    return max(differences) <= space.min_gap


def _same_choices(a: Sequence[Choice], b: Sequence[Choice]) -> bool:
    return all(
        (x.prediction, x.order, x.first_points, x.corrector, x.published, x.start)
        == (y.prediction, y.order, y.first_points, y.corrector, y.published, y.start)
        and (x.compensation, x.shift) == (y.compensation, y.shift)
        and same_noise(x.noise, y.noise)
        and kind_of(x.relaxation) is kind_of(y.relaxation)
        and math.isclose(strength_of(x.relaxation), strength_of(y.relaxation), abs_tol=1e-9)
        for x, y in zip(a, b, strict=True)
    )


def _lay_times(draft: Draft, last: float, logits: Sequence[float]) -> None:
    """Appends times down to the end level; interval k takes its share of the way left."""
    lam, n = draft.lams()[0], len(logits) + 1
    for k, logit in enumerate(logits):
        odds = math.exp(logit) / (n - k - 1)
        lam += (last - lam) * odds / (1.0 + odds)
        draft.times.append(draft.process.time_of_lam(lam))
    draft.times.append(draft.process.time_of_lam(last))


def _logits(lams: Sequence[float]) -> list[float]:
    """The inverse of `_lay_times`."""
    n, last = len(lams) - 1, lams[-1]
    logits = []
    for k in range(n - 1):
        done, left = lams[k + 1] - lams[k], last - lams[k + 1]
        logits.append(math.log(max(done, 1e-12) / max(left, 1e-12) * (n - k - 1)))
    return logits


def _coefficients(values: Parameters, space: SpaceConfig, n: int) -> list[float]:
    """One per step; the first step is of order 1 and has none."""
    if not any(kind is not None and kind.takes_coefficient for kind in space.relaxations):
        return [0.0] * n
    limit = space.coefficient_limit
    return [0.0, *(values.number(f"coefficient_{i}", -limit, limit) for i in range(1, n))]


def _most_steps(space: SpaceConfig, nfe: int) -> int:
    return nfe + any(kind is not StartKind.NETWORK for kind in space.starts)


def _one_of(values: Parameters, name: str, choices: Sequence[Word]) -> Word:
    word = _word(values, name, [word_of(choice) for choice in choices])
    return next(choice for choice in choices if word_of(choice) == word)


def _word(values: Parameters, name: str, words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else values.word(name, words)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Optuna from announcing the in-memory studies; its logger is as before afterwards."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
