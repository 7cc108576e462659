"""What a study may claim of the schedule that it found: the one place for its words and numbers.

    F, P    distances of the found and of the best published schedule, of n images of one noise
    b       what real images have at n images: the bias of the distance

The verdict is that of the paired 95 % interval of P - F, and "beats" is only said where
`s3search.study.results.coverage` finds enough of the published configurations measured.  Of what
has no bias, as a score or the kernel distance, F and P are compared as they are: by their
difference, of which more is better where the score is maximised.

A Fréchet distance of n images is too large by about c / n.  So P / F depends on n and is nearer 1
with fewer images, while P - F hardly depends on it.  Where the reference has images, b is the mean
of draws of n of them, and (P - b) / (F - b) is said before P / F, with an interval over other
noise and over the draws.  There is no such ratio where P - F or F - b may be 0.  For schedules
whose images are far from the real ones b is only about their bias.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

import pandas as pd

from s3search.metrics.intervals import (
    difference_interval,
    mean_interval,
    ratio_interval,
    shifted_ratio_interval,
)
from s3search.search.guard import Guard
from s3search.search.questions import Rung
from s3search.study.database.store import StudyStore
from s3search.study.metric_words import MetricWords
from s3search.study.results.coverage import Coverage, coverage_of, listed
from s3search.study.results.exported import ExportedTrial, exported_trial
from s3search.study.results.frame import HeldOut, Scored, best_of

Interval = tuple[float, float]


class Verdict(StrEnum):
    """What may be said of the found schedule against the best published one."""

    BEATS = "beats"
    LOSES = "loses"
    UNDECIDED = "undecided"  # the paired interval of the difference holds 0
    NOT_COVERED = "not covered"  # it is nearer than what was measured, which is too little


@dataclass(frozen=True, slots=True, kw_only=True)
class RealDistance:
    """What real images have in one extractor, by the mean of several draws of them."""

    value: float
    interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedValues:
    """Found and published on the same noise, by one metric."""

    found: HeldOut
    published: HeldOut
    real: RealDistance | None  # None: no real images were measured

    @property
    def relative(self) -> dict[str, Any]:
        """Difference and ratio of published to found, their bias included."""
        return relative(self.published, self.found)

    @property
    def is_better(self) -> bool | None:
        """Whether the found one is better, nearer to the real images; None where noise may
        decide.
        """
        between = self.relative["difference_95"]
        if between is None or between[0] <= 0.0 <= between[1]:
            return None
        return bool(self.found.direction.loss(between[0]) > 0.0)

    @property
    def words(self) -> MetricWords:
        """What people read of the metric."""
        return self.found.words

    @property
    def less_real(self) -> dict[str, Any] | None:
        """Both distances less what real images have, and their ratio where there is one."""
        if self.real is None or not self.words.has_bias:
            return None
        found, published = self.found, self.published
        ratio_95 = None
        if self.is_better is not None and found.replicates and published.replicates:
            ratio_95 = shifted_ratio_interval(
                published.replicates, found.replicates, self.real.interval
            )
        b = self.real.value
        return {
            "real_images": b,
            "real_images_95": self.real.interval,
            "found": found.value - b,
            "found_95": _less(found.interval, self.real.interval),
            "published": published.value - b,
            "published_95": _less(published.interval, self.real.interval),
            "ratio": None if ratio_95 is None else (published.value - b) / (found.value - b),
            "ratio_95": ratio_95,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """All that may be said at one number of calls; `says` are its sentences."""

    nfe: int
    n_images: int
    verdict: Verdict
    found: Scored | None
    published: Scored | None
    first: PairedValues | None  # by the metric of the search
    second: PairedValues | None
    coverage: Coverage
    exported: ExportedTrial | None
    guards: tuple[str, ...] = ()  # how the found one stands to each, in words
    unkept: str = ""  # that nothing which was found keeps them, in words

    @property
    def says(self) -> tuple[str, ...]:
        """The claim in sentences, the verdict first."""
        exported = () if self.exported is None else (self.exported.says,)
        return (self._headline, *self._reasons(), *exported)

    @property
    def against_published(self) -> dict[str, Any] | None:
        """The best found against the best published schedule in both extractors, in plain data;
        None unless there are both.
        """
        if self.found is None or self.published is None or self.first is None:
            return None
        second = None
        if self.second is not None:
            better = self.second.is_better
            second = {
                "extractor": self.second.found.extractor,
                "verdict": _VERDICTS[better].value,
                **self.second.relative,
                "agrees": better,
                "less_real_images": self.second.less_real,
            }
        return {
            "found": self.found.schedule_id,
            "published": self.published.name,
            "extractor": self.first.found.extractor,
            "verdict": self.verdict.value,
            **self.first.relative,
            "n_images": self.n_images,
            "less_real_images": self.first.less_real,
            "witness": second,
        }

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "nfe": self.nfe,
            "verdict": self.verdict.value,
            "says": list(self.says),
            "n_images": self.n_images,
            "coverage": self.coverage.to_dict(),
            "exported": None if self.exported is None else asdict(self.exported),
        }

    @property
    def _headline(self) -> str:
        if self.found is None:
            nothing = self.unkept or "no schedule that the search found is validated"
            best = "" if self.published is None else f"; the best published is {self._best}"
            return f"{nothing}{best}"
        if self.first is None:
            return "no published schedule is validated: there is nothing to compare with"
        return f"{_SAYS[self.verdict]} {self._best}: {_values(self.first, self.n_images)}"

    @property
    def _best(self) -> str:
        assert self.published is not None
        return f"{self.published.name}, the best of {self.coverage.counted}"

    def _reasons(self) -> Iterator[str]:
        if self.first is None:
            return
        if self.verdict is Verdict.NOT_COVERED:
            gaps = "; ".join(self.coverage.gaps)
            yield f"not enough for a verdict: {gaps}; {self.coverage.remedy}"
        if self.coverage.without:
            names = listed(list(self.coverage.without))
            yield (
                "stock solvers that are not listed, since they make the images of another one or "
                f"never so many calls: {names}"
            )
        yield from _bias(self.first, self.n_images)
        yield from self.guards
        if self.second is not None:
            what = "score" if self.second.words.is_score else "extractor"
            said = [_values(self.second, self.n_images), *_bias(self.second, self.n_images)]
            yield (
                f"{self.second.found.extractor}, a second {what} that chose nothing, "
                f"{_stands(self.second, self.first.is_better)}: {'; '.join(said)}"
            )


_SAYS = {
    Verdict.BEATS: "the found schedule beats",
    Verdict.LOSES: "the found schedule loses to",
    Verdict.UNDECIDED: "held-out noise does not tell the found schedule from",
    Verdict.NOT_COVERED: "the found schedule stands beside",
}
_VERDICTS = {True: Verdict.BEATS, False: Verdict.LOSES, None: Verdict.UNDECIDED}


def claims_of(
    store: StudyStore, frame: pd.DataFrame, scored: Sequence[Scored]
) -> dict[int, Claim]:
    """The claims by number of calls, of all that is validated, what is exported first."""
    real = floors(store)
    found = {}
    for nfe in sorted({row.nfe for row in scored}):
        of_nfe = [row for row in scored if row.nfe == nfe]
        coverage = coverage_of(store, frame, of_nfe, nfe)
        exported = exported_trial(store, frame, of_nfe[0])
        claim = claim_of(of_nfe, coverage, real, exported)
        guards, unkept = _guard_sentences(store.config.guards, claim), ""
        if claim.found is None:
            unkept = _unkept(frame[frame["nfe"] == nfe], of_nfe)
        found[nfe] = replace(claim, guards=guards, unkept=unkept)
    return found


def _unkept(frame: pd.DataFrame, scored: Sequence[Scored]) -> str:
    """That nothing which was found keeps the guards; empty where that is not why nothing is
    validated.
    """
    is_own = (frame["rung"] == Rung.SEARCH.value) & (frame["state"] == "complete")
    own = frame[is_own & ~frame["is_baseline"] & ~frame["vetoed"]]
    broken = own["broken"][own["breaks_guard"]].tolist()
    kept = own["schedule_id"][~own["breaks_guard"]]
    is_again = (frame["rung"] == Rung.FINALS.value) & frame["breaks_guard"]
    again = frame["broken"][is_again & frame["schedule_id"].isin(kept)].tolist()
    held_out = [row.broken for row in scored if not row.is_baseline]
    if not held_out and not 0 < len(broken) + len(again) == len(own):
        return ""
    names = sorted({name for each in (*broken, *again, *held_out) for name in each})
    tried = f"{len(broken)} of {len(own)} break one on the search's noise"
    if again:
        tried += f", {len(again)} more on that of the finals"
    if held_out:
        tried += f", and {len(held_out)} of {len(held_out)} validated ones on held-out noise"
    return (
        f"no schedule that the search found keeps the guards ({', '.join(names)}): {tried}; "
        "allow more, or raise the budget"
    )


def _guard_sentences(guards: Sequence[Guard], claim: Claim) -> tuple[str, ...]:
    """How what was found stands to each guard, beside the best published schedule: both as
    measured on the same held-out noise.
    """
    if claim.found is None or claim.published is None:
        return ()
    beside = f"{claim.published.name}, the best published, on the same held-out noise"
    each = zip(guards, claim.found.guards, claim.published.guards, strict=False)
    return tuple(guard.says(value, published, beside) for guard, value, published in each)


def claim_of(
    scored: Sequence[Scored],
    coverage: Coverage,
    real: Sequence[Mapping[str, Any]] = (),
    exported: ExportedTrial | None = None,
) -> Claim:
    """What may be said of the validated schedules of one number of calls, the winner first;
    ``real`` is `floors`.
    """
    found, published = best_of(scored)
    first = second = None
    if found is not None and published is not None:
        first = _paired(found.held_out, published.held_out, real)
        if found.second is not None and published.second is not None:
            second = _paired(found.second, published.second, real)
    verdict = Verdict.NOT_COVERED
    if first is not None and not (first.is_better and coverage.gaps):
        verdict = _VERDICTS[first.is_better]
    return Claim(
        nfe=scored[0].nfe,
        n_images=scored[0].n_images,
        verdict=verdict,
        found=found,
        published=published,
        first=first,
        second=second,
        coverage=coverage,
        exported=exported,
    )


def floors(store: StudyStore) -> list[dict[str, Any]]:
    """The distance of real images, resampled, in every extractor that the study's latest
    validation used; empty where the reference was no images.
    """
    n_images = store.config.held_out_images
    answers = [answer for answer in store.answers("floor") if answer]
    current = [each for each in answers if each[0]["n_images"] == n_images]
    return list(current[-1]) if current else []


def relative(one: HeldOut, other: HeldOut) -> dict[str, Any]:
    """Difference and ratio to ``other``, with intervals where both have replicates; there is no
    ratio of what is maximised, whose zero means nothing.
    """
    a, b = one.replicates, other.replicates
    paired = a is not None and b is not None and len(a) == len(b)
    has_ratio = one.words.is_minimized
    return {
        "difference": one.value - other.value,
        "difference_95": difference_interval(a, b) if a and b and paired else None,
        "ratio": one.value / other.value if has_ratio and other.value > 0.0 else None,
        "ratio_95": ratio_interval(a, b) if has_ratio and a and b and paired else None,
    }


def _paired(found: HeldOut, published: HeldOut, real: Sequence[Mapping[str, Any]]) -> PairedValues:
    wanted = found.extractor, found.kind
    values = next(
        (each["values"] for each in real if (each["extractor"], _kind(each)) == wanted), None
    )
    drawn = None
    if values:
        drawn = RealDistance(value=sum(values) / len(values), interval=mean_interval(values))
    return PairedValues(found=found, published=published, real=drawn)


def _kind(real: Mapping[str, Any]) -> str:
    """The metric that real images were measured by; rows of before there were others have none."""
    return str(real.get("metric", "frechet"))


def _less(interval: Interval | None, by: Interval) -> Interval | None:
    return None if interval is None else (interval[0] - by[1], interval[1] - by[0])


def _stands(pair: PairedValues, first: bool | None) -> str:
    second = pair.is_better
    if second is None:
        return "cannot tell them apart"
    if second is first:
        return "agrees"
    side = pair.words.better if second else pair.words.worse
    return f"{'decides' if first is None else 'disagrees'}, the found schedule is {side}"


def _values(pair: PairedValues, n_images: int) -> str:
    words, between = pair.words, pair.relative
    apart, interval, which = (
        between["difference"],
        between["difference_95"],
        "published less found",
    )
    if not words.is_minimized:
        apart, which = 0.0 - apart, "found less published"  # a zero has no sign
        interval = None if interval is None else (0.0 - interval[1], 0.0 - interval[0])
    return (
        f"{words.noun} {pair.found.value:.4f} against {pair.published.value:.4f} {words.by} "
        f"{pair.found.extractor} at {n_images:,} images, "
        f"{which} {apart:+.4f}{_between(interval, 4)}"
    )


def _bias(pair: PairedValues, n_images: int) -> Iterator[str]:
    """The ratio less the bias, and the ratio that has it; the ratio alone of what has none."""
    ratio = pair.relative["ratio"]
    whole = ""
    if ratio is not None:
        whole = f"published / found {ratio:.2f}{_between(pair.relative['ratio_95'], 2)}"
    if not pair.words.has_bias:
        yield from [whole] if whole else []
        return
    less = pair.less_real
    if less is None:
        tail = f"; {whole} holds at so many images only" if whole else ""
        yield f"the bias of distances at {n_images:,} images is unknown here{tail}"
        return
    said = (
        f"less what real images have at {n_images:,} images ({less['real_images']:.4f}): "
        f"{less['found']:.4f} against {less['published']:.4f}"
    )
    if less["ratio"] is not None:
        said += f", published / found {less['ratio']:.2f}{_between(less['ratio_95'], 2)}"
    else:
        may = (
            "the difference" if pair.is_better is None else "what is left of the found schedule's"
        )
        said += f", without a ratio, as {may} may be 0"
    yield said + (f"; with this bias in both, {whole}" if whole else "")


def _between(interval: Interval | None, digits: int) -> str:
    if interval is None:
        return ""
    return f" (95 % {interval[0]:.{digits}f} to {interval[1]:.{digits}f})"
