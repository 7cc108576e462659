"""What two network calls tell of a pipeline: how noise gets in, and what it does to a schedule.

Every way in which a pipeline can make other images than its scheduler's schedule says has its own
sentence here, before anything is spent.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from s3search.errors import InvalidConfig, S3SearchError
from s3search.integrations.pipelines.calling import Caller, NoiseEntry
from s3search.integrations.pipelines.conditions import ArgumentSource
from s3search.integrations.pipelines.networks import CountedImages, modules_in
from s3search.integrations.pipelines.packing import TokenOrder
from s3search.integrations.pipelines.scheduler import (
    Answered,
    Asked,
    EndScheduler,
    LateEndScheduler,
    PlanScheduler,
    PredictionScheduler,
)
from s3search.models.diffusers.scheduler_config import PipelineModel
from s3search.schedules import published
from s3search.solvers.plan import Plan, compile_plan

EndKind = type[EndScheduler] | type[LateEndScheduler]

_IMAGES, _CALLS = 2, 2
_SEED = 20260101
_SAME = 1e-4  # of the largest number
_ROUNDINGS = 4  # of half precision
_SAME_TIME = 1e-3  # of a timestep, which pipelines may round to half precision
_ROUNDED_TIME = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was found out."""

    sample_shape: tuple[int, ...]  # of the noise of one image
    image_shape: tuple[int, ...]  # of the image that is made of it
    dtype: torch.dtype  # of the states
    entry: NoiseEntry
    at_once: int | None  # images in one call; None: as many as one likes
    packing: TokenOrder | None  # None: states are as their noise
    end: EndKind | None  # by which states become images; None: they do not
    apart: str | None  # why single calls are not those of a whole run
    batches_per_call: int
    mu: float | None


@dataclass(slots=True, eq=False)
class DryRun:
    """A few calls of a pipeline for one or two images."""

    caller: Caller
    model: PipelineModel
    config: dict[str, Any]
    source: ArgumentSource
    device: torch.device
    packing: TokenOrder | None = None  # once it is known

    def facts(self) -> Facts:
        """All that is asked; raises `InvalidConfig` with what will not do."""
        n, scheduler, draws = self._drawn_run()
        asked = scheduler.asked
        self._check_steps(scheduler)
        first = asked.samples[0]
        if len(first) % n:
            raise _refused(
                f"makes states {tuple(first.shape)} of {n} prompts or images; leave "
                "num_images_per_prompt and the like out of call"
            )
        entry = self._entry(n, asked, draws)
        self.caller.entry = entry
        shape = first.shape[1:] if entry.place is None else draws[entry.place].shape[1:]
        noise = self._noise(n, shape)
        with CountedImages(modules_in(self.caller.pipe)) as counted:
            made, asked = self._run(n, noise, first.dtype, counted)
        again, _ = self._run(n, noise, first.dtype)
        if not _is_same(made, again):
            raise _refused(
                "makes other images of the same noise in a second call; it draws numbers that are "
                "neither torch.randn's nor its scheduler's: put its networks into evaluation mode"
            )
        state_shape = tuple(first.shape[1:])
        if tuple(shape) != state_shape:
            self.packing = self._found_packing(n, shape, first.dtype)
        apart = self._apart(n, asked)
        if tuple(shape) != state_shape and self.packing is None:
            apart = f"its steps see states {state_shape} that are no rearrangement of its noise"
        return Facts(
            sample_shape=tuple(shape),
            image_shape=tuple(made.shape[1:]),
            dtype=first.dtype,
            entry=entry,
            at_once=None if n == _IMAGES else 1,
            packing=self.packing,
            end=self._end(n, asked, made if apart is None else None, made.shape),
            apart=apart,
            batches_per_call=max(1, round(counted.most / n)),
            mu=asked.mu,
        )

    @property
    def _plan(self) -> Plan:
        return compile_plan(published.ddim(self.model.process, nfe=_CALLS))

    def _given(self, n: int) -> Mapping[str, Any]:
        generator = torch.Generator().manual_seed(_SEED)
        return self.source.given(self.source.condition(n, generator, held_out=False), n)

    def _noise(self, n: int, shape: Sequence[int]) -> Tensor:
        generator = torch.Generator().manual_seed(_SEED)
        return torch.randn((n, *shape), generator=generator).to(self.device)

    def _drawn_run(self) -> tuple[int, PlanScheduler, list[Tensor]]:
        """How many images go through one call, its scheduler, and what the pipeline drew."""
        failures: list[InvalidConfig] = []
        for n in (_IMAGES, 1):
            scheduler = PlanScheduler(self.model, self.config, self._plan)
            try:
                _, draws = self.caller.drawing(scheduler, self._given(n), self._noise(n, (8,)))
                return n, scheduler, draws
            except Exception as error:  # the pipeline's code may raise anything
                failures.append(_failed(error, scheduler))
        raise failures[0]

    def _run(
        self, n: int, noise: Tensor, dtype: torch.dtype, counted: CountedImages | None = None
    ) -> tuple[Tensor, Asked]:
        scheduler = PlanScheduler(self.model, self.config, self._plan)
        if counted is not None:
            counted.n_steps = lambda: len(scheduler.asked.timesteps)
        try:
            made = self.caller(scheduler, self._given(n), noise, dtype)
        except Exception as error:  # the pipeline's code may raise anything
            raise _failed(error, scheduler) from error
        return made, scheduler.asked

    def _check_steps(self, scheduler: PlanScheduler) -> None:
        """Raises `InvalidConfig` unless the schedule's calls were made at its times."""
        found = scheduler.asked.timesteps
        if not found:
            raise _refused(
                "never called its scheduler's step; what it makes does not depend on a schedule"
            )
        if len(found) != _CALLS:
            raise _refused(
                f"made {len(found)} steps where the schedule has {_CALLS}; the schedule's calls "
                "are all that is counted: leave out of call what changes them (strength below 1, "
                "denoising_end, timesteps)"
            )
        own = scheduler.timesteps.tolist()
        if any(
            abs(a - b) > max(_SAME_TIME * abs(b), _ROUNDED_TIME)
            for a, b in zip(found, own, strict=True)
        ):
            raise _refused(
                f"told its scheduler the timesteps {found} where the schedule has {own}: it "
                "rescales them behind the scheduler's back (a shift that it applies itself, for "
                "instance), and no schedule would be what it says"
            )

    def _entry(self, n: int, asked: Asked, draws: Sequence[Tensor]) -> NoiseEntry:
        """How noise is given to the pipeline."""
        first = asked.samples[0]
        if asked.noised is None and "latents" in self.caller.parameters:
            noise = self._noise(n, first.shape[1:])
            self.caller.entry = NoiseEntry()
            if self._takes(n, noise, first.dtype):
                return NoiseEntry()
        wanted = first[:n] if asked.noised is None else asked.noised
        for place, drawn in enumerate(draws):
            if drawn.shape == wanted.shape and _is_multiple(wanted, drawn.to(wanted)):
                return NoiseEntry(takes_latents=False, place=place)
        raise _refused(
            f"takes no initial latents of the shape {tuple(first.shape[1:])} that its steps see, "
            "and torch.randn does not draw them, so that schedules could not be compared on the "
            "same noise"
        )

    def _takes(self, n: int, noise: Tensor, dtype: torch.dtype) -> bool:
        """Whether the pipeline begins with ``noise`` (n, ...) that it is given as latents."""
        try:
            _, taken = self._run(n, noise, dtype)
        except InvalidConfig:  # latents of another shape, perhaps
            return False
        return _is_multiple(taken.samples[0], noise.to(dtype))

    def _found_packing(
        self, n: int, shape: Sequence[int], dtype: torch.dtype
    ) -> TokenOrder | None:
        """How states follow from noise of another ``shape``; None where it is not found out."""
        places = torch.arange(torch.Size(shape).numel(), device=self.device)
        numbered = places.float().reshape(1, *shape).repeat(n, *(1 for _ in shape))
        time = torch.tensor(self.model.process.time_of_lam(0.0), dtype=torch.float64)
        scheduler = PredictionScheduler(self.model, self.config, numbered, time)
        with suppress(Exception):  # its answer fits no noise of this shape
            self.caller(scheduler, self._given(n), numbered, dtype)
        samples = scheduler.asked.samples
        return TokenOrder.of(shape, samples[0][0]) if samples else None

    def _as_noise(self, state: Tensor) -> Tensor:
        return state if self.packing is None else self.packing.unpacked(state)

    def _end(
        self, n: int, asked: Asked, made: Tensor | None, shape: Sequence[int]
    ) -> EndKind | None:
        """What lets the pipeline make images of the last states, which are ``made`` if it does
        nothing with states by itself.
        """
        last, time = self._as_noise(asked.states[-1][:n]), _time_of(self.model, asked, -1)
        kinds: tuple[EndKind, ...] = (EndScheduler, LateEndScheduler)
        for kind in kinds:
            try:
                found = self.caller(
                    kind(self.model, self.config, last, time, self.packing), self._given(n), last
                )
            except Exception:  # the pipeline's code may raise anything: then it is not this kind
                continue
            if found.shape == shape and (made is None or _is_same(found, made)):
                return kind
        return None

    def _apart(self, n: int, asked: Asked) -> str | None:
        """Why predictions of single calls are not those of a whole run; None if they are."""
        if not _is_same(asked.samples[1], asked.states[0]):
            return "the pipeline changes its states between two calls"
        dtype, whole = asked.samples[1].dtype, self._as_noise(asked.predictions[1][:n])
        x, time = self._as_noise(asked.samples[1][:n]).float(), _time_of(self.model, asked, 1)
        scheduler = PredictionScheduler(self.model, self.config, x, time, self.packing)
        try:
            self.caller(scheduler, self._given(n), x, dtype)
        except Answered as answered:
            if _is_same(answered.prediction, whole):
                return None
            return "the pipeline's call depends on how many came before it"
        except Exception as error:  # the pipeline's code may raise anything
            return f"the pipeline cannot be left after one call ({_line(error)})"
        return "the pipeline makes no call for a single step"


def _time_of(model: PipelineModel, asked: Asked, call: int) -> Tensor:
    return torch.tensor(model.process_time(asked.timesteps[call]), dtype=torch.float64)


def _failed(error: Exception, scheduler: PlanScheduler) -> InvalidConfig:
    """What is said of a call that failed."""
    name = type(scheduler).__name__
    if isinstance(error, AttributeError) and name in str(error):
        return _refused(
            f"asks its scheduler for what S3Scheduler has not ({_line(error)}); a schedule cannot "
            "be replayed in it"
        )
    if isinstance(error, S3SearchError):
        return _refused(f"cannot follow a schedule: {_line(error)}")
    return _refused(
        f"failed in a call of {_CALLS} steps with {type(error).__name__}: {_line(error)}; its "
        "arguments are those of call in [model], prompts and classes"
    )


def _refused(why: str) -> InvalidConfig:
    return InvalidConfig(f"model: the pipeline {why}")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]


def _is_same(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape:
        return False
    scale = max(float(expected.abs().max()), 1e-9)
    apart = float((found.double() - expected.double()).abs().max())
    return apart <= _tolerance(expected.dtype) * scale


def _is_multiple(found: Tensor, of: Tensor) -> bool:
    """Whether a tensor is a positive multiple of another, which is not 0."""
    if found.shape != of.shape:
        return False
    x, y = found.double(), of.double()
    factor = float((x * y).sum() / (y * y).sum())
    return factor > 0 and float((x - factor * y).norm()) <= _tolerance(of.dtype) * float(x.norm())


def _tolerance(dtype: torch.dtype) -> float:
    """By which part numbers that should be equal may differ."""
    return max(_SAME, _ROUNDINGS * torch.finfo(dtype).eps)
