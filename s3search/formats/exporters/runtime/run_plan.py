"""Runs the "plan" of an exported schedule.json; needs nothing but this file.

    plan = json.load(open("schedule.json"))["plan"]
    image = run_plan(plan, model, noise)

model(x, t) is the estimate of the clean image; noise ~ N(0, 1) is a number, a list (of lists) of
numbers, or an array or tensor. Where plan["image"] is not null, pass it in the type of noise. A
plan with "noise" in its rows needs step_noise: any iterable that gives each of these rows, in
turn, fresh N(0, 1) in the type of noise.
"""

from typing import Any


def run_plan(
    plan: dict[str, Any], model: Any, noise: Any, image: Any = None, step_noise: Any = ()
) -> Any:
    """The image that the plan makes of noise."""
    if "start_map" in plan or any("offset" in row for row in plan["rows"]):
        raise ValueError("this plan has a Gaussian jump or weights per pixel: use s3search")
    draws = iter(step_noise)
    states: list[Any] = []
    answers: list[Any] = []
    for row in plan["rows"]:
        weights, values = [*row["p"], *row["q"]], [*states, *answers[: len(row["q"])]]
        if not states:
            weights, values = [plan["noise_scale"]], [noise]
        if row["constant"]:
            weights, values = [*weights, row["constant"]], [*values, image]
        if "noise" in row:
            weights, values = [*weights, row["noise"]], [*values, next(draws, None)]
            if values[-1] is None:
                n = sum("noise" in each for each in plan["rows"])
                raise ValueError(f"this plan draws noise {n} times: pass step_noise, one for each")
        states.append(combined(weights, values))
        if row["network_time"] is not None:
            answers.append(model(states[-1], row["network_time"]))
    return states[-1]


def combined(weights: list[float], values: list[Any]) -> Any:
    """The weighted sum, entry by entry of lists."""
    if isinstance(values[0], list):
        return [combined(weights, list(parts)) for parts in zip(*values, strict=True)]
    return sum(weight * value for weight, value in zip(weights, values, strict=True))
