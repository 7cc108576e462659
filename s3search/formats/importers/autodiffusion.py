"""Results of AutoDiffusion (arXiv:2309.10438), as its searches print them to log.txt.

A result is a Python literal on a line, either a list of timesteps or a dict with `timesteps` and
`skip_layers`, followed by its FID:

    cand: {'timesteps': [901, 76, 423, 640], 'skip_layers': [[], [3], [], []]}, fid: 24.1

What the search really ran differs from how that reads, and is what is imported:

- the order in a list means nothing: timesteps are visited from the noisy one down, and equal ones
  once;
- `skip_layers` goes by *rank*, not by place: its entry r belongs to the r-th smallest timestep.

Its layers are all residual and attention blocks of ADM's U-Net in the order of their calls, those
that change the shape among them; the blocks of `s3search.models.layer_skip` are those alone that
can hand their input on, so a number means another block here.  The numbers are kept as they are.

The scripts run DDIM on them, whose last step goes to the clean end.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from s3search.errors import InvalidConfig
from s3search.files import text_of
from s3search.formats.importers.request import PROCESSES, Request, chosen, literal
from s3search.formats.importers.solvers import solved, solver_of
from s3search.processes import VpDiscrete
from s3search.schedules.schedule import ModelPatch, Schedule

_FID = re.compile(r"fid\s*[:=]\s*([-+0-9.eE]+)", re.IGNORECASE)
_LONGEST_LINE = 100_000  # letters of a result


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    timesteps: tuple[int, ...]
    skip_layers: tuple[tuple[int, ...], ...] | None
    fid: float | None


def read(request: Request) -> Schedule:
    """The result ``--index`` names, else the one of the lowest FID, else the last."""
    process = PROCESSES["adm"] if request.process is None else request.process
    if not isinstance(process, VpDiscrete):
        raise InvalidConfig(
            f"--process: AutoDiffusion's timesteps are training indices of a discrete model, "
            f"asked for {process.type!r}"
        )
    found = [r for line in text_of(request.source).splitlines() if (r := _result(line))]
    if not found:
        raise InvalidConfig(f"{request.source}: holds no line with a result of AutoDiffusion")
    scored = [result for result in found if result.fid is not None]
    if request.index is None and scored:
        result = min(scored, key=lambda scored: scored.fid or 0.0)
    else:
        result = chosen(request, found)
    return _schedule(request, process, result)


def _schedule(request: Request, process: VpDiscrete, result: _Result) -> Schedule:
    ranked = sorted(set(result.timesteps))
    notes, patch = [], None
    dropped = len(result.timesteps) - len(ranked)
    if dropped:
        notes.append(
            f"{len(result.timesteps)} timesteps of which {dropped} repeat others: the search ran "
            f"{len(ranked)} steps"
        )
    if result.skip_layers is not None and any(result.skip_layers):
        if len(result.skip_layers) < len(ranked):
            raise InvalidConfig(
                f"{request.source}: {len(ranked)} timesteps need as many lists of skipped layers, "
                f"found {len(result.skip_layers)}"
            )
        by_rank = [tuple(sorted(set(layers))) for layers in result.skip_layers[: len(ranked)]]
        patch = ModelPatch(skip_layers=tuple(reversed(by_rank)))
        if list(result.timesteps) != ranked:
            notes.append(
                "lists of skipped layers belong to the timesteps in ascending order, as the "
                "search ran them, not as printed beside them"
            )
        notes.append(
            "layers are numbered as in the published network, blocks that change the shape among "
            "them; `s3search tools inspect-model` numbers those alone that can be left out"
        )
    times = [*(float(t) for t in reversed(ranked)), process.clean_time]
    facts: dict[str, Any] = {} if result.fid is None else {"fid": result.fid}
    return solved(
        process, times, solver_of(request, "ddim"), patch=patch, notes=tuple(notes), **facts
    )


def _within(line: str, opening: str, closing: str) -> str | None:
    """From the first opening to the last closing bracket of a line."""
    start, end = line.find(opening), line.rfind(closing)
    return line[start : end + 1] if 0 <= start < end < _LONGEST_LINE else None


def _result(line: str) -> _Result | None:
    """The result a line prints, None for any other line."""
    text = _within(line, "{", "}") or _within(line, "[", "]")
    value = None if text is None else literal(text)
    if isinstance(value, Mapping):
        timesteps, layers = value.get("timesteps"), value.get("skip_layers")
    else:
        timesteps, layers = value, None
    if timesteps is None or not _is_indices(timesteps):
        return None
    if layers is not None and not (isinstance(layers, list) and all(map(_is_list, layers))):
        return None
    fid = _FID.search(line)
    return _Result(
        timesteps=tuple(timesteps),
        skip_layers=None if layers is None else tuple(tuple(own) for own in layers),
        fid=None if fid is None else _number(fid.group(1)),
    )


def _is_indices(value: Any) -> bool:
    return _is_list(value) and len(value) > 0


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)


def _number(word: str) -> float | None:
    try:
        return float(word.rstrip("."))
    except ValueError:
        return None
