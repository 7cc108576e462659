"""The search of s3search: proxies, early stopping, predictor, polish, and a second look at the
best.

For every number of network calls, fewest first:

    seeds      the stock solvers, whatever anything says of them; then published ones (and the
               winner with one call fewer, extended) by what the proxies say, the first measured
               whole, the others with early stopping
    evolution  children of the best; of several times as many as are measured the predictor
               chooses, as long as its cross-validated forecasts are better than chance (the
               multi-stage search of S3, arXiv:2312.07243); each stage notes how proxies and
               predictor forecast what was measured
    polish     gradient descent on the distance, short from several starts and noise levels, then
               longer for the best of them (`s3search.search.algorithms.polishing`); it has all
               that evolution leaves, which ends where it finds nothing better
    finals     the best once more, on noise of their own

Proxies are asked in portions, as long as they are worth their seconds
(`s3search.search.predictor.free_proxies`).  What each stage gained is noted in the end
(`s3search.search.gains`).

What a person vetoes counts, from the next batch on, as what did not work: it is no parent, no
threshold, nothing that the predictor learns from; it is not polished, no finalist, and not
extended for more calls.  What was under way or made of it is kept.

Budgets are shares of the images that the study may spend; a polishing iteration costs its images
twice, forward and backward.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from s3search.schedules.schedule import Schedule
from s3search.search.algorithms.evolution import Evolution
from s3search.search.algorithms.polishing import polish_in_rounds, polish_size, ranked_of
from s3search.search.conversation import Conversation, Setup, Talk, unvalued
from s3search.search.early_stopping import never, thresholds_for
from s3search.search.edit.extend_nfe import extended
from s3search.search.edit.noising import seeded_with_noise
from s3search.search.gains import EVOLUTION, FINALS, Gains
from s3search.search.ladder import LadderRung
from s3search.search.predictor.surrogate import Surrogate
from s3search.search.questions import (
    FINE_NFE,
    SOLVES,
    TRAJECTORY_TARGETS,
    Measurement,
    Thresholds,
    polish_checks,
    solve_calls,
)
from s3search.search.stock import variants_first
from s3search.search.trial import OriginKind, Trial, schedule_key, searched, seeded
from s3search.solvers.trainable import Freedom

_SEEDS = 0.15  # shares of the budget
_EVOLUTION = 0.1
_LEAST_EVOLUTION = 0.05  # after seeds that took more than theirs
_FRUITLESS = 2  # stages of evolution without a better schedule, after which the polish begins
_FINALS = 0.1
_CALIBRATED = 24  # seeds measured whole, to know how proxies and first looks forecast
_LEAST_CALIBRATED = 4
_RANK = 10  # a child is measured to its end if it may reach the value of this rank
_POOL = 3  # children made for one that is measured
_FINALISTS = 8
_IMAGES_PER_FINALIST = 5  # whole measurements
_LEAST_IMAGES_PER_FINALIST = 2
_LEAST_FINALISTS = 2


class S3:
    """The search of the module's docstring."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.total = setup.evaluations

    def images_by_stage(self, budget: float) -> Mapping[str, float]:
        """The images that each stage may spend of a budget, of all numbers of calls together."""
        setup = self._setup
        found = dict.fromkeys((SOLVES, "baselines", "search", "polish", "finals"), 0.0)
        own, found[SOLVES] = net_budget(setup, budget) / len(setup.nfe), setup.solved_images
        polishes = LadderRung.POLISH in setup.ladder
        for nfe in setup.nfe:
            given = [seed for seed in setup.seeds if seed.nfe == nfe]
            n_stock = sum(seed.origin.is_stock for seed in given) if setup.stock_first else 0
            share = baseline_share(own / setup.n_images, n_stock=n_stock, n_baselines=len(given))
            seeds = share * own
            finals = min(_FINALS * own, _FINALISTS * _IMAGES_PER_FINALIST * setup.n_images)
            if setup.solves:
                n_finalists, n_images = finals_size(setup, nfe, _FINALS * own)
                finals = float(n_finalists * n_images)
                found[SOLVES] += solve_calls(n_images) / nfe
            until = _SEEDS + _EVOLUTION if polishes else 1.0 - _FINALS
            bred = max(_LEAST_EVOLUTION * own if polishes else 0.0, until * own - seeds)
            bred = max(0.0, min(bred, (1.0 - _FINALS) * own - seeds))
            found["baselines"] += seeds
            found["search"] += bred
            found["polish"] += max(0.0, (1.0 - _FINALS) * own - seeds - bred) if polishes else 0.0
            found["finals"] += finals
        return {name: images for name, images in found.items() if images or name != SOLVES}

    def run(self) -> Conversation[None]:
        """Searches every number of calls in turn."""
        talk, searched_nfe = Talk(), sorted(self._setup.nfe)
        yield from talk.turn()  # what is known outside
        fewer: Schedule | None = None
        useless: dict[str, str] = {}  # proxies, and why
        for i, nfe in enumerate(searched_nfe):
            seeds = [seed for seed in self._setup.seeds if seed.nfe == nfe]
            fewer = fewer and extended(fewer, nfe)
            if fewer is not None:
                origin = seeded(f"winner with {searched_nfe[i - 1]} calls, padded")
                seeds = [Trial.of(fewer, origin), *seeds]
            winner = yield from _OneNfe(self._setup, talk, nfe, seeds, useless).run()
            fewer = None if winner is None else winner.schedule
        yield from talk.turn()  # with the last notes


@dataclass
class _OneNfe:
    """The search at one number of calls."""

    setup: Setup
    talk: Talk
    nfe: int
    seeds: Sequence[Trial]
    useless: dict[str, str] = field(default_factory=dict)  # proxies that ranked badly, and why
    spent: float = 0.0
    known: list[Measurement] = field(default_factory=list)
    keys: set[bytes] = field(default_factory=set)
    stage: int = 0  # of evolution
    polished: list[Trial] = field(default_factory=list)  # for long, the longest first
    vetoed: frozenset[str] = frozenset()  # of the known

    def __post_init__(self) -> None:
        self.surrogate = Surrogate(self.setup, self.talk, self.useless)
        self.gains = Gains(self.nfe)
        self.breeder = _breeder(self.setup)

    def run(self) -> Conversation[Trial | None]:
        """The best schedule, as far as the search itself can tell."""
        yield from self._measure_seeds()
        if LadderRung.POLISH in self.setup.ladder:
            spent = self.spent / self.budget if self.budget else 0.0
            least = spent + _LEAST_EVOLUTION
            share = min(max(_SEEDS + _EVOLUTION, least), 1.0 - _FINALS)
            yield from self._evolve(share, fruitless=_FRUITLESS)
            yield from self._polish()
        else:
            yield from self._evolve(1.0 - _FINALS)
        winner = yield from self._finals()
        self.talk.note("gains", self.gains.content(self.surrogate.worth(), self.vetoed))
        return winner

    @property
    def budget(self) -> float:
        """Images for this number of calls; where the budget is time, by the rate so far."""
        return net_budget(self.setup, self.talk.outside.budget) / len(self.setup.nfe)

    def _rng(self, *path: int) -> np.random.Generator:
        """A generator for one place of the search."""
        return np.random.default_rng([self.setup.seed, self.nfe, *path])

    # -- vetoes ----------------------------------------------------------------------------

    def _respect_vetoes(self) -> None:
        """From here on it is as if what is vetoed had not worked."""
        vetoed = self.talk.outside.vetoed & {m.trial.id for m in self.known}
        if vetoed == self.vetoed:
            return
        self.vetoed = vetoed
        self.breeder = _breeder(self.setup)
        for number, measured in enumerate(self._standing, start=1):
            self.breeder.tell(measured.numbered(number))
        self.surrogate.leave_out(vetoed)

    @property
    def _standing(self) -> list[Measurement]:
        """What is known, the vetoed without their values."""
        if not self.vetoed:
            return self.known
        return [unvalued(m) if m.trial.id in self.vetoed else m for m in self.known]

    def _is_kept(self, trial: Trial) -> bool:
        self._respect_vetoes()
        return trial.id not in self.vetoed

    # -- seeds and children ----------------------------------------------------------------

    def _measure_seeds(self) -> Conversation[None]:
        seeds, n_whole = list(self.seeds), self.setup.n_images
        ranked = yield from self._ordered(seeds)
        n_first = _n_calibrated(self.budget, n_whole)
        stock = [s for s in seeds if s.origin.is_stock] if self.setup.stock_first else []
        given = [seed for seed in ranked if seed.origin.kind is OriginKind.SEED]
        others = [seed for seed in ranked if seed not in stock and seed not in given]
        n_others = max(_LEAST_CALIBRATED, n_first - len(given) - len(stock))
        first = [*stock, *given, *_spread(others, n_others)]
        yield from self._measure(first, never(self.setup.looks))
        rest = yield from self._ordered([seed for seed in seeds if seed not in first])
        rest = variants_first(self.known, rest)
        self.surrogate.note_ladder("seeds", self.known)
        of_stock = len(stock) * n_whole  # which leaves the share of the others whole
        while rest and self.spent - of_stock < _SEEDS * self.budget:
            if self.talk.outside.is_over:
                return
            self._respect_vetoes()
            batch, rest = rest[: self.setup.batch], rest[self.setup.batch :]
            yield from self._measure(batch, self._thresholds())

    def _ordered(self, seeds: Sequence[Trial]) -> Conversation[list[Trial]]:
        """The seeds as the proxies rank them, but first of all what the winner may be."""
        order = yield from self.surrogate.order(seeds)
        runnable = {trial.id for trial in self.setup.problem.runnable(seeds)}
        return sorted((seeds[i] for i in order), key=lambda trial: trial.id not in runnable)

    def _evolve(self, share: float, fruitless: float = math.inf) -> Conversation[None]:
        """Breeds for the share of the budget, or until so many stages found nothing better."""
        self.gains.begin(EVOLUTION)
        vain = 0
        while self.spent < share * self.budget and vain < fruitless:
            if self.talk.outside.is_over:
                return
            self._respect_vetoes()
            chosen = yield from self._next_children()
            if not chosen:
                return
            best = min(_values(self.setup, self._standing), default=math.inf)
            found = yield from self._measure(chosen, self._thresholds())
            vain = 0 if min(_values(self.setup, found), default=math.inf) < best else vain + 1
            self.stage += 1

    def _next_children(self) -> Conversation[list[Trial]]:
        """The children that are measured at this stage; none where the space has no more."""
        key = f"NFE {self.nfe}, stage {self.stage}"
        known = yield from self.talk.recall(key)
        if known is not None:
            self.surrogate.grow()
            self.surrogate.remember(known.trials, known.content)
            return list(known.trials)
        children = self._children(self.stage)
        if not children:
            return []
        self.surrogate.grow()
        rng, batch = self._rng(1, self.stage), self.setup.batch
        picked = yield from self.surrogate.choose(children, batch, self._threshold(), rng)
        chosen = [children[i] for i in picked]
        self.talk.decided(key, chosen, self.surrogate.known_of(chosen))
        return chosen

    def _children(self, stage: int) -> list[Trial]:
        rng = self._rng(2, stage)
        n = self.setup.batch * (_POOL if self.surrogate.is_useful else 1)
        found: dict[bytes, Trial] = {}
        for _ in range(4 * n):
            schedule, origin, parents = self.breeder.child(self.nfe, rng)
            key = schedule_key(schedule)
            if key not in self.keys and key not in found:
                found[key] = Trial.of(schedule, searched(origin), parents)
            if len(found) == n:
                break
        return list(found.values())

    def _thresholds(self) -> Thresholds:
        if LadderRung.RACE not in self.setup.ladder:
            return ()
        return thresholds_for(self._threshold(), self._standing, self.setup.looks)

    def _threshold(self) -> float:
        """The value of rank `_RANK` among what the winner may be, infinite while there are
        fewer.
        """
        values = _values(self.setup, self._standing)
        return values[_RANK - 1] if len(values) >= _RANK else math.inf

    def _measure(
        self, trials: Sequence[Trial], thresholds: Thresholds
    ) -> Conversation[list[Measurement]]:
        questions = [self.setup.measure(trial, thresholds) for trial in trials]
        found: list[Measurement] = list((yield from self.talk.ask(questions)))
        self.gains.add(found)
        for measured in found:
            self.known.append(measured)
            self.keys.add(measured.trial.key)
            self.spent += measured.cost
            self.breeder.tell(measured.numbered(len(self.known)))
        yield from self.surrogate.learn(found)
        self.spent += self.surrogate.bill()
        return found

    # -- polish ----------------------------------------------------------------------------

    def _polish(self) -> Conversation[None]:
        left = (1.0 - _FINALS) * self.budget - self.spent
        if self.talk.outside.is_over:
            return
        self._respect_vetoes()
        came_to_something = yield from polish_in_rounds(
            self.setup.problem.runnable(ranked_of(self._standing)),
            left,
            self.setup.n_images,
            self._polished,
            self._is_kept,
            batch=self.setup.batch,
            lowers=Freedom.START not in self.setup.problem.fixed_in_polish,
            seeded=partial(_seeded_with_noise, self.setup),
        )
        if not came_to_something:
            yield from self._evolve(1.0 - _FINALS)  # nothing here has a gradient

    def _polished(
        self, starts: Sequence[Trial], images: float, seed: int
    ) -> Conversation[list[Measurement]]:
        iterations, n_images = polish_size(images)
        n = _paid_iterations(self.setup, iterations, self.nfe)
        questions = [
            self.setup.polish(start, iterations=n, n_images=n_images, seed=seed)
            for start in starts
        ]
        answers = yield from self.talk.ask(questions)
        self.gains.add(answers, f"polish {seed + 1}")
        made = [(start, a.value) for start, a in zip(starts, answers, strict=True) if a.value]
        self.spent += 2.0 * (iterations + polish_checks(iterations)) * n_images * len(made)
        self.spent += sum(value.guard_images for _, value in made)
        origin = searched(f"polish {seed + 1}")
        wanted = {start.id: Trial.of(value.schedule, origin, (start.id,)) for start, value in made}
        found = yield from self._measure(list(wanted.values()), never(self.setup.looks))
        if seed > 0:
            self.polished = [*ranked_of(found), *self.polished]
        by_start = dict(zip(wanted, found, strict=True))
        nothing = [
            Measurement(question=self.setup.measure(start), error="not polished")
            for start in starts
        ]
        return [by_start.get(m.trial.id, m) for m in nothing]

    # -- finals ----------------------------------------------------------------------------

    def _finals(self) -> Conversation[Trial | None]:
        """The best by more images of noise that nobody was chosen on: what was polished for long
        comes first, since it was not chosen on the search's noise, as the others were.
        """
        self._respect_vetoes()
        polished = [trial for trial in self.polished if trial.id not in self.vetoed]
        measured = self.setup.problem.runnable(ranked_of(self._standing))
        known = {trial.id for trial in polished}
        best = [*polished, *(trial for trial in measured if trial.id not in known)]
        if not best:
            return None
        n, n_images = finals_size(self.setup, self.nfe, _FINALS * self.budget)
        # half of the places at least for what was found by measuring alone
        best = [*best[: n - n // 2], *measured, *best]
        best = list({trial.id: trial for trial in best}.values())[:n]
        questions = [self.setup.measure_again(trial, n_images) for trial in best]
        answers = yield from self.talk.ask(questions)
        self.gains.add(answers, FINALS)
        values = [m.loss for m in answers]
        again = {t.id: v for t, v in zip(best, values, strict=True) if v is not None}
        self.surrogate.note_ladder("end", self.known, ("finals", n_images, again))
        left = [i for i, trial in enumerate(best) if self._is_kept(trial)]
        scored = [(v, i) for i in left if (v := values[i]) is not None]
        if scored:
            return best[min(scored)[1]]
        return best[left[0]] if left else None


def _breeder(setup: Setup) -> Evolution:
    """What breeds, empty."""
    return Evolution(replace(setup, seeds=()))


def _seeded_with_noise(setup: Setup, trial: Trial) -> Trial | None:
    """The trial with a little noise in its steps, where images have no targets: one of fresh noise
    has none.
    """
    if setup.polish_loss == "trajectory" or setup.fine_targets:
        return None
    made = seeded_with_noise(setup.problem, trial.schedule)
    return None if made is None else Trial.of(made, trial.origin)


def _paid_iterations(setup: Setup, iterations: int, nfe: int) -> int:
    """Fine solves, of a trajectory's loss or of a metric's targets, are paid for with iterations,
    so that any loss costs the same.
    """
    if setup.polish_loss != "trajectory" and not setup.fine_targets:
        return iterations
    solves = TRAJECTORY_TARGETS * FINE_NFE / nfe
    return max(1, round(iterations - solves / 2))  # forward and backward are two


def _values(setup: Setup, measured: Sequence[Measurement]) -> list[float]:
    """The losses of what the winner may be and was measured whole, the lowest first."""
    whole = {m.trial: m.loss for m in measured if m.loss is not None}
    return sorted(whole[trial] for trial in setup.problem.runnable(whole))


def baseline_share(evaluations: float, *, n_stock: int, n_baselines: int) -> float:
    """The share of a budget, in evaluations of one number of calls, that goes to baselines at
    least; above 1 where a small one is exceeded.
    """
    n_others = max(_LEAST_CALIBRATED, _n_calibrated(evaluations) - n_stock, _SEEDS * evaluations)
    return min(n_baselines, n_stock + n_others) / max(evaluations, 1.0)


def net_budget(setup: Setup, images: float) -> float:
    """What fine solves leave of a budget of images: half of it at least, so that a small one is
    exceeded.
    """
    return max(images / 2.0, images - setup.solved_images)


def finals_size(setup: Setup, nfe: int, images: float) -> tuple[int, int]:
    """How many finalists there are, and how many images of each, for so many images in all; what
    stands beside them (the best published solver, fine solves) takes its part.
    """
    least = _LEAST_IMAGES_PER_FINALIST * setup.n_images
    n = int(max(_LEAST_FINALISTS, min(_FINALISTS, images // least)))
    beside = setup.has_guards + (FINE_NFE / nfe if setup.solves else 0.0)
    most = _IMAGES_PER_FINALIST * setup.n_images
    return n, int(max(2, min(most, images // (n + beside))))


def _n_calibrated(budget: float, n_whole: int = 1) -> int:
    """How many seeds are measured whole at first, of a budget in images."""
    return int(max(_LEAST_CALIBRATED, min(_CALIBRATED, _SEEDS * budget / n_whole / 2)))


def _spread(trials: Sequence[Trial], n: int) -> list[Trial]:
    """The first half of ``n``, and as many again evenly over the rest."""
    n = min(n, len(trials))
    head = n - n // 2
    rest = range(head, len(trials))
    others = np.linspace(0, len(rest) - 1, n - head).round().astype(int).tolist() if rest else []
    return [*trials[:head], *(trials[rest[i]] for i in dict.fromkeys(others))]
