"""What the exported files of k-diffusion and ComfyUI execute: their source is written into them,
behind their tables.

A table (exporters/sigma_table.py has its legend) is of the states of a run, one row each.
"""

from typing import Any

TABLES: list[dict[str, Any]] = []


def sample_s3(
    model: Any,
    x: Any,
    sigmas: Any = None,
    extra_args: dict[str, Any] | None = None,
    callback: Any = None,
    disable: bool | None = None,  # there is no progress bar to disable
) -> Any:
    """The image from the state ``x`` at sigmas[0], by one call of model(x, sigma) per row that has
    one. ``sigmas`` are those of this file, from its first or from a later one on.
    """
    table = table_of(sigmas)
    given = dict(extra_args or {})
    if table["guidance"] and "cond_scale" not in given:
        raise ValueError(
            "this schedule sets the guidance scale of every call, and found no cond_scale in "
            "extra_args: pass a model that takes cond_scale (k-diffusion's CFGDenoiser)"
        )
    states: list[Any] = [x]
    answers: list[Any] = []
    for r, row in enumerate(table["rows"]):
        if r:
            total = row["constant"] * x.new_tensor(table["image"]) if row["constant"] else 0.0
            for k, weight in row["p"]:
                total = total + weight * states[k]
            for j, weight in row["q"]:
                total = total + weight * answers[j]
            states.append(total)
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
    """The table that begins at sigmas[0]; the first without sigmas."""
    if sigmas is None:
        return TABLES[0]
    asked = [float(sigma) for sigma in sigmas]
    for table in TABLES:
        own = table["sigmas"]
        pairs = zip(own, asked, strict=False)
        if len(own) == len(asked) and all(abs(a - b) <= 1e-4 * a + 1e-7 for a, b in pairs):
            return table
    raise ValueError(
        f"sigmas: {asked} were asked, this file's table is for {TABLES[0]['sigmas']}, from the "
        f"first or from one of the next {len(TABLES) - 1} on; pass those, to the last"
    )
