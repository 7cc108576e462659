"""The search of s3search: proxies, race, predictor, polish, and a second look at the best.

For every number of network calls, fewest first:

    seeds      published solvers (and the winner with one call fewer, padded) by what the proxies
               say, the first measured whole, the others in a race
    evolution  children of the best; of several times as many as are measured the predictor
               chooses, as long as its cross-validated forecasts are better than chance (the
               multi-stage search of S3, arXiv:2312.07243); each stage notes what proxies and
               predictor were worth
    polish     gradient descent on the distance, short from many starts and noise levels, then
               longer for the best of them (`s3search.search.algorithms.polishing`)
    finals     the best once more, on noise of their own

What a person vetoes counts, from the next batch on, as what did not work: it is no parent, no bar
of a race, nothing that the predictor learns from; it is not polished, no finalist, and not padded
for more calls.  What was under way or made of it is kept.  A search that is run again after an
interruption is told of vetoes at the points where it was told before, so it asks for the same.

Budgets are shares of the images that the study may spend; a polishing iteration costs its images
twice, forward and backward.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from s3search.processes import NoiseProcess
from s3search.schedules.schedule import Schedule
from s3search.search.algorithms.evolution import SEED, Evolution
from s3search.search.algorithms.polishing import polish_in_rounds, polish_size, ranked_of
from s3search.search.early_stopping import open_race, race_to
from s3search.search.edit.extend_nfe import padded
from s3search.search.lab import Lab, Measured, Trial
from s3search.search.ladder import DEFAULT_LADDER, LadderRung
from s3search.search.predictor.surrogate import Guide
from s3search.search.proposer import Observation, schedule_key
from s3search.search.space.space import SearchSpace

_SEEDS = 0.15  # shares of the budget
_EVOLUTION = 0.1
_FINALS = 0.1
_CALIBRATED = 24  # seeds measured whole, to know what proxies and races are worth
_BAR = 10  # a child races against the value of this rank
_POOL = 3  # children made for one that is measured
_FINALISTS = 8
_IMAGES_PER_FINALIST = 5  # whole measurements
_LEAST_IMAGES_PER_FINALIST = 2
_LEAST_FINALISTS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Settings:
    """Which rungs are used, and how many proposals are decided on at once."""

    ladder: tuple[LadderRung, ...] = DEFAULT_LADDER
    batch: int = 16


class S3:
    """The search of the module's docstring."""

    def __init__(
        self,
        space: SearchSpace,
        process: NoiseProcess,
        *,
        nfe: Sequence[int],
        seed: int,
        seeds: Mapping[str, Schedule],
        evaluations: int | None,
        settings: S3Settings | None = None,
    ) -> None:
        self._space, self._process, self._nfe, self._seed = space, process, sorted(nfe), seed
        self._seeds, self.total = seeds, evaluations
        self._settings = settings or S3Settings()

    def run(self, lab: Lab) -> None:
        """Searches every number of calls in turn."""
        fewer: Schedule | None = None
        for i, nfe in enumerate(self._nfe):
            seeds = {n: s for n, s in self._seeds.items() if s.nfe == nfe}
            while fewer is not None and fewer.nfe < nfe:
                fewer = padded(fewer)
            if fewer is not None:
                seeds = {f"{SEED}winner with {self._nfe[i - 1]} calls, padded": fewer, **seeds}
            fewer = _OneNfe(self, lab, nfe, seeds).run()

    @property
    def evolution(self) -> Evolution:
        """What breeds, empty."""
        return Evolution(self._space, self._process, nfe=self._nfe, seed=self._seed)

    def has(self, rung: LadderRung) -> bool:
        """Whether the ladder has this rung."""
        return rung in self._settings.ladder

    @property
    def n_nfe(self) -> int:
        """Numbers of calls to search."""
        return len(self._nfe)

    @property
    def batch(self) -> int:
        """Proposals decided on at once."""
        return self._settings.batch

    def rng(self, *path: int) -> np.random.Generator:
        """A generator for one place of the search."""
        return np.random.default_rng([self._seed, *path])


@dataclass
class _OneNfe:
    """The search at one number of calls."""

    search: S3
    lab: Lab
    nfe: int
    seeds: Mapping[str, Schedule]
    spent: float = 0.0
    known: list[Measured] = field(default_factory=list)
    keys: set[bytes] = field(default_factory=set)
    stage: int = 0  # of evolution
    polished: list[Schedule] = field(default_factory=list)  # for long, the longest first
    vetoed: frozenset[str] = frozenset()  # of the known

    def __post_init__(self) -> None:
        self.guide = Guide(self.search.has, self.lab)
        self.breeder = self.search.evolution

    def run(self) -> Schedule | None:
        """The best schedule, as far as the search itself can tell."""
        self._measure_seeds()
        share = _SEEDS + _EVOLUTION
        self._evolve(share if self.search.has(LadderRung.POLISH) else 1.0 - _FINALS)
        if self.search.has(LadderRung.POLISH):
            self._polish()
        return self._finals()

    @property
    def budget(self) -> float:
        """Images for this number of calls; where the budget is time, by the rate so far."""
        return self.lab.budget() / self.search.n_nfe

    # -- vetoes ----------------------------------------------------------------------------

    def _respect_vetoes(self) -> None:
        """From here on it is as if what is vetoed had not worked."""
        ids = {m.schedule.id for m in self.known}
        vetoed = self.lab.vetoed_here() & ids
        if vetoed == self.vetoed:
            return
        self.vetoed = vetoed
        self.breeder = self.search.evolution
        for number, measured in enumerate(self._standing, start=1):
            self._breed_from(number, measured)
        self.guide.leave_out(vetoed)

    @property
    def _standing(self) -> list[Measured]:
        """What is known, the vetoed without their values."""
        if not self.vetoed:
            return self.known
        return [replace(m, value=None) if m.schedule.id in self.vetoed else m for m in self.known]

    def _is_kept(self, schedule: Schedule) -> bool:
        self._respect_vetoes()
        return schedule.id not in self.vetoed

    # -- seeds and children ----------------------------------------------------------------

    def _measure_seeds(self) -> None:
        names = list(self.seeds)
        order = self.guide.order([self.seeds[name] for name in names])
        names = [names[i] for i in order]
        n_whole = self.lab.n_images
        n_first = int(max(4, min(_CALIBRATED, _SEEDS * self.budget / n_whole / 2)))
        given = [name for name in names if name.startswith(SEED)]
        first = [
            *given,
            *_spread([n for n in names if n not in given], max(4, n_first - len(given))),
        ]
        self._measure([self._seed_trial(name) for name in first], open_race(n_whole))
        rest = [name for name in self.seeds if name not in set(first)]
        rest = [rest[i] for i in self.guide.order([self.seeds[name] for name in rest])]
        self.guide.note_ladder("seeds", self.known)
        while rest and self.spent < _SEEDS * self.budget and not self.lab.is_over():
            self._respect_vetoes()
            batch, rest = rest[: self.search.batch], rest[self.search.batch :]
            self._measure([self._seed_trial(name) for name in batch], self._race())

    def _seed_trial(self, name: str) -> tuple[Schedule, str, tuple[str, ...]]:
        origin = name if name.startswith(SEED) else f"baseline: {name}"
        return self.seeds[name], origin, ()

    def _evolve(self, share: float) -> None:
        while self.spent < share * self.budget and not self.lab.is_over():
            self._respect_vetoes()
            children = self._children(self.stage)
            if not children:
                return
            chosen = self.guide.choose(
                [child[0] for child in children],
                self.search.batch,
                self._bar(),
                self.search.rng(self.nfe, 1, self.stage),
            )
            self._measure([children[i] for i in chosen], self._race())
            self.stage += 1

    def _children(self, stage: int) -> list[tuple[Schedule, str, tuple[str, ...]]]:
        rng = self.search.rng(self.nfe, 2, stage)
        n = self.search.batch * (_POOL if self.guide.is_useful else 1)
        found: dict[bytes, tuple[Schedule, str, tuple[str, ...]]] = {}
        for _ in range(4 * n):
            child = self.breeder.child(self.nfe, rng)
            key = schedule_key(child[0])
            if key not in self.keys:
                found.setdefault(key, child)
            if len(found) == n:
                break
        return list(found.values())

    def _race(self) -> tuple[tuple[int, float], ...]:
        n_images = self.lab.n_images
        if not self.search.has(LadderRung.RACE):
            return ()
        return race_to(self._bar(), self._standing, n_images)

    def _bar(self) -> float:
        """The value of rank `_BAR`, infinite while there are fewer."""
        values = sorted(m.value for m in self._standing if m.value is not None)
        return values[_BAR - 1] if len(values) >= _BAR else math.inf

    def _measure(
        self,
        wanted: Sequence[tuple[Schedule, str, tuple[str, ...]]],
        race: tuple[tuple[int, float], ...],
    ) -> list[Measured]:
        trials = [
            Trial(schedule=schedule, origin=origin, parents=parents, race=race)
            for schedule, origin, parents in wanted
        ]
        found = self.lab.measure(trials)
        for measured in found:
            self.known.append(measured)
            self.keys.add(schedule_key(measured.schedule))
            self.spent += measured.n_images
            self._breed_from(len(self.known), measured)
        self.guide.tell(found)
        self.spent += self.guide.bill()
        return found

    def _breed_from(self, number: int, measured: Measured) -> None:
        self.breeder.tell(
            Observation(number=number, schedule=measured.schedule, value=measured.value)
        )

    # -- polish ----------------------------------------------------------------------------

    def _polish(self) -> None:
        left = (1.0 - _FINALS) * self.budget - self.spent
        if self.lab.is_over():
            return
        self._respect_vetoes()
        starts = ranked_of(self._standing)
        n_images, batch, kept = self.lab.n_images, self.search.batch, self._is_kept
        if not polish_in_rounds(starts, left, n_images, self._polished, kept, batch=batch):
            self._evolve(1.0 - _FINALS)  # nothing here has a gradient

    def _polished(self, starts: Sequence[Schedule], images: float, seed: int) -> list[Measured]:
        iterations, n_images = polish_size(images)
        made = self.lab.polish(starts, iterations=iterations, n_images=n_images, seed=seed)
        self.spent += 2.0 * iterations * n_images * sum(s is not None for s in made)
        wanted = {
            start.id: (schedule, f"polish {seed + 1}", (start.id,))
            for schedule, start in zip(made, starts, strict=True)
            if schedule is not None
        }
        found = self._measure(list(wanted.values()), open_race(self.lab.n_images))
        if seed > 0:
            self.polished = [*ranked_of(found), *self.polished]
        by_start = dict(zip(wanted, found, strict=True))
        nothing = [Measured(schedule=start, value=None, n_images=0) for start in starts]
        return [by_start.get(m.schedule.id, m) for m in nothing]

    # -- finals ----------------------------------------------------------------------------

    def _finals(self) -> Schedule | None:
        """The best by more images of noise that nobody was chosen on: what was polished for long
        comes first, since it was not chosen on the search's noise, as the others were.
        """
        self._respect_vetoes()
        polished = [s for s in self.polished if s.id not in self.vetoed]
        measured = ranked_of(self._standing)
        best = [*polished, *(s for s in measured if s not in polished)]
        if not best:
            return None
        images = _FINALS * self.budget
        least = _LEAST_IMAGES_PER_FINALIST * self.lab.n_images
        n = int(max(_LEAST_FINALISTS, min(_FINALISTS, images // least)))
        n_images = int(max(2, min(_IMAGES_PER_FINALIST * self.lab.n_images, images // n)))
        # half of the places at least for what was found by measuring alone
        best = [*best[: n - n // 2], *measured, *best]
        best = list({schedule.id: schedule for schedule in best}.values())[:n]
        values = self.lab.rescore(best, n_images)
        again = {s.id: v for s, v in zip(best, values, strict=True) if v is not None}
        self.guide.note_ladder("end", self.known, ("finals", n_images, again))
        left = [i for i, schedule in enumerate(best) if self._is_kept(schedule)]
        scored = [(v, i) for i in left if (v := values[i]) is not None]
        if scored:
            return best[min(scored)[1]]
        return best[left[0]] if left else None


def _spread(names: Sequence[str], n: int) -> list[str]:
    """The first half of ``n``, and as many again evenly over the rest."""
    n = min(n, len(names))
    head = n - n // 2
    rest = range(head, len(names))
    others = np.linspace(0, len(rest) - 1, n - head).round().astype(int).tolist() if rest else []
    return [*names[:head], *(names[rest[i]] for i in dict.fromkeys(others))]
