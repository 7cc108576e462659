"""What an import is asked for, and the small readers that formats share."""

import ast
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s3search.errors import InvalidConfig, InvalidSchedule, nearest
from s3search.processes import (
    NoiseProcess,
    VpDiscrete,
    edm,
    flow,
    process_from_dict,
    vp_cosine,
    vp_discrete,
    vp_linear,
)

PROCESSES: dict[str, NoiseProcess] = {
    "edm": edm(),
    "score_sde": vp_linear(),
    "vp_linear": vp_linear(),
    "vp_cosine": vp_cosine(),
    "adm": vp_discrete("linear"),
    "lsun": vp_discrete("scaled_linear", beta_start=0.0015, beta_end=0.0195),
    "sd": vp_discrete("scaled_linear", beta_start=0.00085, beta_end=0.012),
    "flow": flow(),
}
"""Model families whose noise process has a name: EDM, Score SDE, ADM (and iDDPM's linear betas),
LDM's LSUN and FFHQ models, Stable Diffusion 1, 2 and XL, rectified flows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One import; an option that is None was not given."""

    source: str  # a file, or a name for formats that hold tables
    process: NoiseProcess | None = None
    steps: int | None = None
    solver: str | None = None
    index: int | None = None  # which of several results in the file, from 0
    shift: float | None = None  # a flow's shift of its times
    mean_image: Path | None = None
    ems: Path | None = None  # EMS statistics of the model, for v3 steps
    stop: bool | None = None  # end at the last entry instead of the clean end
    eta: float | None = None  # how much noise a sampler adds
    s_noise: float | None = None  # what it multiplies its noise by
    compat: bool | None = None  # what the published code does, where it differs from its paper


def process_named(text: str) -> NoiseProcess:
    """The process of a model family, or that of a JSON object ``{"type": ..., ...}``."""
    if text in PROCESSES:
        return PROCESSES[text]
    if not text.lstrip().startswith("{"):
        raise InvalidConfig(
            f"--process: {text!r} is no model family; {nearest(text, PROCESSES)} "
            'or a JSON object like \'{"type": "edm"}\''
        )
    try:
        return process_from_dict(json.loads(text))
    except (ArithmeticError, RecursionError, ValueError) as error:
        raise InvalidConfig(f"--process: {error}") from error


def required(request: Request, option: str) -> Any:
    """The value of an option that the format cannot do without."""
    value = getattr(request, option)
    if value is None:
        raise InvalidConfig(f"{request.source}: this format needs --{option.replace('_', '-')}")
    return value


def chosen(request: Request, found: Sequence[Any]) -> Any:
    """The entry ``--index`` names; without it the last one, what a search ended with."""
    index = len(found) - 1 if request.index is None else request.index
    if not 0 <= index < len(found):
        raise InvalidConfig(
            f"{request.source}: --index {index} asked for, the file holds {len(found)} results, "
            f"0 to {len(found) - 1}"
        )
    return found[index]


def literal(text: str) -> Any:
    """The Python literal ``text`` writes (numbers, strings, lists, dicts), None if it is none.

    Only literals: a name or a call is no literal, so nothing can run.
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def time_of_fraction(process: NoiseProcess, t: float) -> float:
    """The process's time for one counted as continuous codes do: node i of a table at (i + 1) / n.

    Processes with a continuous time, and `edm`, have that time already.
    """
    return t * process.n - 1 if isinstance(process, VpDiscrete) else t


def time_of_sigma(process: NoiseProcess, sigma: float) -> float:
    """The time of a noise level given as sigma / alpha; for a flow, whose sigma is its time, t."""
    if sigma == 0.0:
        return process.clean_time
    if sigma < 0.0:
        raise InvalidSchedule(f"sigmas must be 0 or more, found {sigma}")
    if process.type in ("edm", "flow"):
        return sigma
    return process.time_of_lam(-math.log(sigma))
