"""A diffusers scheduler that replays a schedule in any pipeline.

>>> pipe.scheduler = S3Scheduler.from_schedule("schedule.json", pipe.scheduler.config)
>>> images = pipe(prompt, num_inference_steps=pipe.scheduler.num_steps).images

One iteration of the pipeline is one network call of the plan (plan.py has the legend). At call j
the pipeline hands back the state it was given and what the network answered, F_j; then

    D_j = a x + b F_j                  a, b by the network's parametrization and the level
    x_r = sum_k p[r, k] x_k + sum_j q[r, j] D_j + r_const[r] c + noise[r] xi_r

for all rows up to the next one the network must see; that one is returned. Each noisy row draws
its xi_r from the pipeline's ``generator`` (one, or one for each image), as diffusers' schedulers
do: on the network's device or the generator's, in the dtype of what the network answered. Sums
are formed, and past states and predictions kept, in float32 where the pipeline runs in half
precision: D carries the network's error times sigma / alpha, which half precision would round a
second time.

The pipeline's model decides the process. A schedule for another one is moved to the times of equal
lam: every rule is a function of lam, so x / alpha is the same trajectory.

Where pipelines differ, and what is done about it:

- Most scale their noise by `init_noise_sigma`; DDPM's, DiT's and all flow pipelines start from
  unit noise. A first level far from sigma = 1 is warned about there.
- An analytic start makes the first call at the *second* time. `scale_model_input` turns the
  noise into that state, so a pipeline that never calls it (DDPM, SD3, Flux) is refused at its
  first step.
- DiT passes the result of `scale_model_input` on to `step` as the state; it is recognised there.
- Flow pipelines (SD3, Flux) pass no generator: their noise is from torch's own, as with any
  stochastic scheduler.
- Noise of a start is drawn with the first state by the pipeline, and an analytic start whose
  first step draws is refused: `scale_model_input` is given no generator.
- Image-to-image starts in mid-schedule: the remaining steps are compiled anew with the history
  they have, and those that need more become first order.

D is never clipped by default, whatever ``clip_sample`` says: schedules are searched without it
(diffusers' DDPMScheduler clips unless told otherwise). Ask with ``thresholding``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin
from diffusers.utils import logging
from diffusers.utils.outputs import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from s3search.errors import InvalidSchedule
from s3search.integrations.replay import Replay, Threshold, Thresholding
from s3search.models.diffusers.pipeline_sigmas import is_passed
from s3search.models.diffusers.scheduler_config import PipelineModel, model_of
from s3search.processes import Flow
from s3search.rules import EmsStatistics, level
from s3search.schedules.retime import retime
from s3search.schedules.schedule import Schedule, StartKind
from s3search.schedules.start_noise import with_one_draw
from s3search.solvers.image_to_image import image_to_image_start
from s3search.solvers.plan import Plan, compile_plan
from s3search.solvers.shapes import over_the_rest
from s3search.solvers.step_noise import Draws

_log = logging.get_logger(__name__)

_NAME = "_class_name"  # where a config names its class
_SAME_LEVEL = 1e-3  # of a timestep or sigma that a user writes in few digits
_UNIT_SCALE_SLACK = 0.01  # sigma(t_0) of every published VP schedule is within 0.003 of 1


@dataclass
class S3SchedulerOutput(BaseOutput):
    """The next state, and the estimate of the clean image it was made with."""

    prev_sample: Tensor
    pred_original_sample: Tensor | None = None


class S3Scheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # config_name, as in all
    """Replays schedules; made by `from_schedule`, saved and loaded like every scheduler."""

    order = 1
    _compatibles = [  # noqa: RUF012  # diffusers reads and extends plain lists
        *(scheduler.name for scheduler in KarrasDiffusionSchedulers),
        "FlowMatchEulerDiscreteScheduler",
    ]

    @register_to_config  # type: ignore[untyped-decorator]  # diffusers leaves it untyped
    def __init__(
        self,
        s3_schedules: Sequence[Mapping[str, Any]] = (),
        s3_model: Mapping[str, Any] | None = None,
        s3_thresholding: str | None = None,
        s3_statistics: str | None = None,
    ) -> None:
        if not s3_schedules or s3_model is None:
            raise InvalidSchedule(
                "S3Scheduler needs a schedule and found none in this config; make it with "
                "S3Scheduler.from_schedule('schedule.json', pipe.scheduler.config)"
            )
        schedules = _schedules_of(s3_schedules, s3_model)
        # Pipelines look up fields of the model's own scheduler (steps_offset, base_shift, ...).
        of_model = {key: value for key, value in s3_model.items() if not key.startswith("_")}
        self.register_to_config(**of_model)  # type: ignore[no-untyped-call]  # diffusers
        self._model = model_of(s3_model)
        self._threshold = _threshold(s3_thresholding, s3_model)
        self._ems = None if s3_statistics is None else EmsStatistics.load(s3_statistics)
        self._schedules = _by_calls(_replayable(own, self._model) for own in schedules)
        self.num_train_timesteps = self._model.n_times
        self.set_timesteps()

    @classmethod
    def from_schedule(
        cls,
        schedule: str | Path | Schedule | Sequence[str | Path | Schedule],
        config: Mapping[str, Any] | SchedulerMixin,
        *,
        thresholding: Thresholding | str | None = None,
        statistics: str | Path | None = None,
    ) -> Self:
        """A scheduler for the pipeline whose scheduler is given, or was one of this ``config``.

        Several schedules with different numbers of calls may be given; the pipeline's
        ``num_inference_steps`` chooses among them. ``statistics`` is the EMS file that schedules
        with v3 steps name; a saved pipeline keeps its path. Raises `InvalidSchedule` for a
        schedule this model cannot run.
        """
        several = [schedule] if isinstance(schedule, str | Path | Schedule) else schedule
        loaded = [s if isinstance(s, Schedule) else Schedule.load(s) for s in several]
        given = config if isinstance(config, Mapping) else _config_of(config)
        model = given.get("s3_model") or given
        made: Self = cls(
            s3_schedules=[one.to_dict() for one in loaded],
            s3_model={k: _plain(v) for k, v in model.items() if k == _NAME or k[0] != "_"},
            s3_thresholding=None if thresholding is None else Thresholding(thresholding).value,
            s3_statistics=None if statistics is None else str(Path(statistics).resolve()),
        )
        return made

    @property
    def num_steps(self) -> int:
        """What to pass as ``num_inference_steps``: the network calls of the first schedule."""
        return next(iter(self._schedules))

    @property
    def available_steps(self) -> tuple[int, ...]:
        """Every number of steps that one of the schedules has."""
        return tuple(self._schedules)

    @property
    def init_noise_sigma(self) -> float:
        """The factor that makes unit noise the first state."""
        self._noise_was_scaled = True
        return self._replay.plan.noise_scale

    @property
    def step_index(self) -> int | None:
        """The iteration the pipeline is at; None before the first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """The iteration the pipeline said it would begin at."""
        return self._begin_index

    def set_begin_index(self, begin_index: int | None = 0) -> None:
        """Begins at this iteration (image-to-image)."""
        self._begin_index = begin_index

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[float] | Tensor | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
        mu: float | None = None,  # flow pipelines shift their grid by it
    ) -> None:
        """Chooses the schedule with so many calls and forgets the last run.

        Flow pipelines pass ``sigmas`` (and ``mu``), CogView4's ``timesteps`` beside them, in every
        run whose user names none: of those the number counts, and the schedule has levels of its
        own.  Others are asked for by a user, and must be the schedule's; raises `InvalidSchedule`.
        """
        given = sigmas if timesteps is None else timesteps
        n = num_inference_steps if given is None else len(given)
        n = self.num_steps if n is None else n
        plan = self._chosen(n)
        self._replay = Replay(plan, self._model, self._threshold)
        own = self._model.network_times(plan.network_times)
        ends = [*plan.call_levels, plan.levels[-1]]
        levels = torch.tensor([self._model.network_sigma(at) for at in ends])
        if not _are_the_pipelines(timesteps, sigmas, self._model):
            _check_asked("timesteps", timesteps, own)
            _check_asked("sigmas", sigmas, levels[:-1])
        self.num_inference_steps = n
        self.timesteps = own.to(device)
        self.sigmas = levels
        self._first_call = 0
        self._step_index: int | None = None
        self._begin_index = None
        self._holds_image = self._noise_was_scaled = False

    def _chosen(self, n: int) -> Plan:
        """The plan of the schedule with ``n`` calls; raises `InvalidSchedule`."""
        if n not in self._schedules:
            raise _other_number(n, self.available_steps)
        self._schedule = self._schedules[n]
        return compile_plan(self._schedule, self._ems)

    def index_for_timestep(
        self, timestep: float | Tensor, schedule_timesteps: Tensor | None = None
    ) -> int:
        """The first iteration at this timestep (an implicit corrector has two)."""
        known = self.timesteps if schedule_timesteps is None else schedule_timesteps
        wanted = float(timestep)
        found = torch.isclose(known.cpu().double(), torch.tensor(wanted).double(), atol=1e-5)
        found = found.nonzero()
        if not len(found):
            raise InvalidSchedule(
                f"timestep: {wanted} was asked, the schedule has {known.tolist()}; "
                "pass one of scheduler.timesteps"
            )
        return int(found[0])

    def scale_model_input(self, sample: Tensor, timestep: float | Tensor | None = None) -> Tensor:
        """What the network must see: the state, for most models and calls the sample itself."""
        if self._step_index is None:
            self._begin(timestep)
        return self._replay.seen(sample, self._call)

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        return_dict: bool = True,
        *,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,  # DDIMPipeline passes it
        **others: Any,
    ) -> S3SchedulerOutput | tuple[Tensor, ...]:
        """The next state the network must see, or the image, from the answer at ``sample``.

        Noisy steps draw from ``generator``, or from one for each image. Raises `InvalidSchedule`
        for other noise than the schedule's (``eta``).
        """
        unknown = sorted(name for name, value in others.items() if value is not None)
        if unknown:
            raise InvalidSchedule(
                f"step: this pipeline passes {', '.join(unknown)}, which no schedule knows (LTX's "
                "condition pipelines have a time for every token); replay it in a pipeline that "
                "passes the network's answer, the timestep and the sample"
            )
        if eta or use_clipped_model_output:
            raise InvalidSchedule(
                f"step: {eta=}, {use_clipped_model_output=} were asked; a schedule has the noise "
                "of its own steps and clips nothing; leave both at their defaults"
            )
        if self._step_index is None:
            self._begin(timestep)
        call, replay = self._call, self._replay
        if call >= replay.plan.nfe:
            raise InvalidSchedule(
                f"step: the schedule's {replay.plan.nfe} calls are done; call set_timesteps first"
            )
        self._step_index = call + self._first_call + 1
        sample = replay.unscaled(sample, call)
        if call < 0:  # a level called twice, entered in the middle: its second call counts
            return _output(sample, None, return_dict=return_dict)
        new, x0 = replay.taken(sample, model_output, call, _draws(generator, model_output))
        return _output(new, x0, return_dict=return_dict)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """alpha(t) x_0 + sigma(t) noise, one timestep per sample or one for all."""
        self._holds_image = self._holds_image or self._step_index is None
        times = [self._model.process_time(float(t)) for t in timesteps.flatten()]
        levels = [level(self._model.process, t) for t in times]
        alpha = over_the_rest(noise.new_tensor([at.alpha for at in levels]), noise)
        sigma = over_the_rest(noise.new_tensor([at.sigma for at in levels]), noise)
        return alpha * original_samples + sigma * noise

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """`add_noise` under the name and argument order of the flow pipelines."""
        return self.add_noise(sample, noise, timestep)

    def __len__(self) -> int:
        return self._model.n_times

    @property
    def _call(self) -> int:
        """The plan's call this iteration makes; -1 where it makes none."""
        return (self._step_index or 0) - self._first_call

    def _begin(self, timestep: float | Tensor | None) -> None:
        index = self._begin_index
        if index is None:
            index = 0 if timestep is None else self.index_for_timestep(timestep)
        self._step_index = index
        if index or self._holds_image:
            self._begin_inside(index)
            return
        scale = self._replay.plan.noise_scale
        if abs(scale - 1) > _UNIT_SCALE_SLACK and not self._noise_was_scaled:
            _log.warning(
                f"this pipeline did not read init_noise_sigma; the schedule starts from noise of "
                f"scale {scale:.4g}, not 1: scale the latents yourself, or "
                "use a schedule that starts at the noisiest level"
            )

    def _begin_inside(self, index: int) -> None:
        """Compiles what is left from the level of this call on."""
        whole = self._replay.plan
        t = whole.levels[whole.evaluated[index]].t
        inner = image_to_image_start(self._schedule, t)
        if inner.lowered:
            _log.warning(
                f"beginning at call {index} of {self.num_inference_steps}, without the calls "
                f"before it: {', '.join(inner.lowered)} became first order"
            )
        plan = compile_plan(inner.schedule, self._ems)
        self._replay = Replay(plan, self._model, self._threshold)
        self._first_call = self.num_inference_steps - plan.nfe


def _other_number(n: int, known: Sequence[int]) -> InvalidSchedule:
    have = " or ".join(map(str, known))
    return InvalidSchedule(
        f"num_inference_steps: {n} was asked, the schedule has {have} (its network calls); pass "
        f"num_inference_steps={known[0]} (pipe.scheduler.num_steps) or give from_schedule a "
        f"schedule with {n}"
    )


def _replayable(schedule: Schedule, model: PipelineModel) -> Schedule:
    """The schedule on the model's own times."""
    if schedule.model_patch is not None and schedule.model_patch.guidance_scale is not None:
        raise InvalidSchedule(
            "model_patch.guidance_scale: a scheduler sees the network's answer after guidance and "
            "cannot change its scale; call the pipeline with "
            "s3search.integrations.diffusers_guidance.guided(pipe, schedule)"
        )
    if schedule.model_patch is not None:
        raise InvalidSchedule(
            "model_patch: the schedule was searched with a changed network, which a scheduler "
            "cannot replay; patch the network yourself or search without it"
        )
    draws_at_once = (
        schedule.start.kind is not StartKind.NETWORK and schedule.steps[0].is_stochastic
    )
    if draws_at_once:
        raise InvalidSchedule(
            f"start.kind: {schedule.start.kind.value!r} before a step that draws noise makes the "
            "first state in scale_model_input, which is given no generator; use a schedule whose "
            "start is 'network'"
        )
    return retime(with_one_draw(schedule), model.process)


def _draws(generator: Any, model_output: Tensor) -> Draws:
    """Unit normals as diffusers' schedulers draw them, or as whoever drives the pipeline says."""
    if callable(generator):
        return generator  # type: ignore[no-any-return]

    def draw(row: int, like: Tensor) -> Tensor:
        drawn: Tensor = randn_tensor(
            like.shape, generator=generator, device=model_output.device, dtype=model_output.dtype
        )
        return drawn.to(like)

    return draw


def _schedules_of(schedules: Any, model: Any) -> list[Schedule]:
    """Those of a config, which may be from anywhere; raises `InvalidSchedule`."""
    if not isinstance(model, Mapping) or not isinstance(schedules, list | tuple):
        raise InvalidSchedule(
            "S3Scheduler needs a list s3_schedules and the config s3_model of the model's own "
            "scheduler; its config was changed: save it again"
        )
    return [Schedule.from_dict(dict(s) if isinstance(s, Mapping) else s) for s in schedules]


def _by_calls(schedules: Iterable[Schedule]) -> dict[int, Schedule]:
    found: dict[int, Schedule] = {}
    for schedule in schedules:
        if schedule.nfe == 0:
            raise InvalidSchedule("nfe: the schedule never calls the network; nothing to replay")
        if schedule.nfe in found:
            raise InvalidSchedule(
                f"nfe: two schedules make {schedule.nfe} calls, and num_inference_steps could not "
                "choose between them; give one per number of calls"
            )
        found[schedule.nfe] = schedule
    return found


def _are_the_pipelines(timesteps: Any, sigmas: Any, model: PipelineModel) -> bool:
    """Whether these are what a flow's pipeline passes in every run, and no user's."""
    if sigmas is None or not isinstance(model.process, Flow):
        return False
    levels = torch.as_tensor(sigmas, dtype=torch.float64, device="cpu")
    if levels.dim() != 1 or not is_passed(levels.tolist()):
        return False
    if timesteps is None:
        return True
    times = torch.as_tensor(timesteps, dtype=torch.float64, device="cpu")
    return torch.allclose(times, levels * model.n_times, atol=_SAME_LEVEL)


def _check_asked(name: str, asked: Any, own: Tensor) -> None:
    """Raises `InvalidSchedule` where a user asks for other values than the schedule's own."""
    if asked is None:
        return
    found = torch.as_tensor(asked, dtype=torch.float64, device="cpu")
    same = found.shape == own.shape and torch.allclose(
        found, own.double(), rtol=_SAME_LEVEL, atol=_SAME_LEVEL
    )
    if not same:
        raise InvalidSchedule(
            f"{name}: {found.tolist()} were asked, the schedule has {own.tolist()}, and replaying "
            "it at others is another schedule; leave them out"
        )


def _config_of(scheduler: Any) -> dict[str, Any]:
    """A scheduler's config, with the name of its class, which it lacks in memory."""
    return {**scheduler.config, _NAME: type(scheduler).__name__}


def _output(
    state: Tensor, x0: Tensor | None, *, return_dict: bool
) -> S3SchedulerOutput | tuple[Tensor, ...]:
    if return_dict:
        return S3SchedulerOutput(prev_sample=state, pred_original_sample=x0)
    return (state,) if x0 is None else (state, x0)


def _threshold(kind: str | None, config: Mapping[str, Any]) -> Threshold:
    if kind == Thresholding.CONFIG:
        by_config = Thresholding.CLIP if config.get("clip_sample") else None
        return Threshold(Thresholding.DYNAMIC if config.get("thresholding") else by_config, config)
    return Threshold(None if kind is None else Thresholding(kind), config)


def _plain(value: Any) -> Any:
    """A config value as JSON holds it."""
    if isinstance(value, Tensor) or hasattr(value, "tolist"):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value
