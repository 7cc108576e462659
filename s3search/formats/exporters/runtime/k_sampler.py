"""What the exported files of k-diffusion and ComfyUI execute: their source is written into them,
behind their tables.

A table (exporters/sigma_table.py has its legend) is of the states of a run, one row each.
"""

from collections.abc import Callable
from typing import Any

import torch

TABLES: list[dict[str, Any]] = []


def sample_s3(
    model: Any,
    x: Any,
    sigmas: Any = None,
    extra_args: dict[str, Any] | None = None,
    callback: Any = None,
    disable: bool | None = None,  # there is no progress bar to disable
    *,
    noise_sampler: Callable[[Any, Any], Any] | None = None,
) -> Any:
    """The state at sigmas[-1] from the state ``x`` at sigmas[0], by one call of model(x, sigma)
    per row that has one and lies before. ``sigmas`` are those of this file or some that follow
    one another in it: the first of them for one model, say, and the rest, from the last of those
    on, for another. Steps that draw noise ask noise_sampler(sigma, sigma_next) for it.
    """
    table = table_of(sigmas)
    end = end_of(table, sigmas)
    given = dict(extra_args or {})
    draw = noise_sampler or noise_like(x, given.get("seed"))
    if table["guidance"] and "cond_scale" not in given:
        raise ValueError(
            "this schedule sets the guidance scale of every call, and found no cond_scale in "
            "extra_args: pass a model that takes cond_scale (k-diffusion's CFGDenoiser)"
        )
    states: list[Any] = [table["begin"] * x if "begin" in table else x]
    answers: list[Any] = []
    for r, row in enumerate(table["rows"]):
        if r:
            total = row["constant"] * x.new_tensor(table["image"]) if row["constant"] else 0.0
            for k, weight in row["p"]:
                total = total + weight * states[k]
            for j, weight in row["q"]:
                total = total + weight * answers[j]
            if "noise" in row:
                weight, *between = row["noise"]
                total = total + weight * draw(*map(x.new_tensor, between))
            states.append(total)
        if r == end:
            break  # the rest is another run's
        if row["call"]:
            scale, sigma = row["call"]
            if table["guidance"]:
                given["cond_scale"] = table["guidance"][len(answers)]
            levels = x.new_full((x.shape[0],), sigma)
            answers.append(model(scale * states[-1], levels, **given))
            if callback is not None:
                i = min(len(answers), len(table["sigmas"]) - 1) - 1  # of a corrector's two: one
                now = {"x": states[-1], "i": i, "denoised": answers[-1]}
                callback({**now, "sigma": levels[0], "sigma_hat": levels[0]})
    return states[-1]


def table_of(sigmas: Any) -> dict[str, Any]:
    """The table that begins at sigmas[0] and has them all in turn; the first without sigmas."""
    if sigmas is None:
        return TABLES[0]
    asked = [float(sigma) for sigma in sigmas]
    for table in TABLES:
        own = table["sigmas"]
        pairs = zip(own, asked, strict=False)
        if 1 < len(asked) <= len(own) and all(is_near(a, b) for a, b in pairs):
            return table
    raise ValueError(
        f"sigmas: {asked} were asked, this file's table is for {TABLES[0]['sigmas']}, from the "
        f"first or from one of the next {len(TABLES) - 1} on; pass at least two of those that "
        "follow one another"
    )


def end_of(table: dict[str, Any], sigmas: Any) -> int | None:
    """The row where a run ends before the image does, the first after which no call is at a higher
    level; None where it makes the image.
    """
    if sigmas is None or len(sigmas) == len(table["sigmas"]):
        return None
    end, found = float(sigmas[-1]), None
    for r, row in enumerate(table["rows"]):
        if row["call"] and is_near(row["call"][1], end):
            found = r if found is None else found
        elif row["call"] and row["call"][1] > end:
            found = None
    if found is None:
        raise ValueError(
            f"sigmas: a run that ends at {end} was asked, and this schedule tells the network "
            "other levels than its states': it cannot be split between two models; pass all sigmas"
        )
    return found


def noise_like(x: Any, seed: int | None) -> Callable[[Any, Any], Any]:
    """Unit normals like ``x``, from torch's own generator or, with ComfyUI's ``seed``, from one on
    the device of ``x`` as its samplers have it: of the next seed on the CPU, where the seed itself
    has made the first state.
    """
    generator = None
    if seed is not None:
        is_cpu = x.device.type == "cpu"
        generator = torch.Generator(device=x.device).manual_seed(seed + is_cpu)

    def draw(sigma: Any, sigma_next: Any) -> Any:
        return torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)

    return draw


def is_near(own: float, asked: float) -> bool:
    """Whether a level that is asked for is this one, in the digits of float32."""
    return abs(own - asked) <= 1e-4 * own + 1e-7
