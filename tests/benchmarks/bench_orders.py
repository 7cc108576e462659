"""The measured orders of docs/solvers.md: ``python -m tests.benchmarks.bench_orders``.

Slopes of the error on the closed-form flow of a Gaussian, from exact histories, as the convergence
tests measure them; local slopes less one.  Then weak orders of solvers with noise.
"""

from collections.abc import Callable

from s3search.processes import edm, flow, vp_linear
from s3search.rules import (
    Adams,
    AdamsTime,
    Bidirectional,
    MomentumKind,
    Taylor,
    UniPC,
    Velocity,
)
from s3search.schedules import published
from tests.solvers.test_convergence import local_order, v3_order
from tests.solvers.test_convergence_slopes import local_order as slope_order
from tests.solvers.test_convergence_slopes import momentum_order
from tests.solvers.test_weak_orders import (
    ancestral_order,
    churn_order,
    dpmpp_sde_order,
    er_sde_order,
    restart_order,
    sa_order,
    sde_order,
    seeds_order,
    two_call_order,
)

_UNEQUAL, _EQUAL = (0.0, 1.0, 2.3, 3.1), (0.0, 1.0, 2.0, 3.0)
_ORDERS = (1, 2, 3, 4)


def _unipc(order: int, prediction: str) -> float:
    points = tuple(range(-order, -1))
    return local_order(UniPC(prediction=prediction, variant="bh2", points=points), order)


def _corrector(order: int) -> float:
    points = (*range(-order - 1, -2), -1)
    rule = UniPC(prediction="data", variant="bh2", start=-2, points=points)
    return local_order(rule, order, sees_target=True)


_METHODS: dict[str, tuple[tuple[int, ...], Callable[[int], float]]] = {
    "Taylor, noise": (_ORDERS, lambda p: local_order(Taylor(prediction="noise", order=p), p)),
    "Taylor, data": (_ORDERS, lambda p: local_order(Taylor(prediction="data", order=p), p)),
    "Taylor, v3 (DPM-Solver-v3)": (_ORDERS, v3_order),
    "DPM-Solver++(2M), (3M)": (
        (2, 3),
        lambda p: local_order(published.dpm_multistep_steps(6, order=p)[3].predictor, p),
    ),
    "UniPC predictor, noise": (_ORDERS, lambda p: _unipc(p, "noise")),
    "UniPC predictor, data": (_ORDERS, lambda p: _unipc(p, "data")),
    "UniPC corrector of order p": ((1, 2, 3), _corrector),
    "DEIS rhoAB, LMS, iPNDM_v": (
        _ORDERS,
        lambda p: local_order(Adams(points=tuple(range(-p, 0))), p),
    ),
    "DEIS tAB": (
        _ORDERS,
        lambda p: slope_order(
            AdamsTime(points=tuple(range(-p, 0))), vp_linear(), 0.5, _UNEQUAL[:p], largest=0.02
        ),
    ),
    "iPNDM, equal steps": (
        _ORDERS,
        lambda p: slope_order(published.ipndm_steps(5, p)[-1].predictor, edm(), 1.0, _EQUAL[:p]),
    ),
    "iPNDM, unequal steps": (
        (2, 3, 4),
        lambda p: slope_order(
            published.ipndm_steps(5, p)[-1].predictor, edm(), 1.0, (0.0, 1.7, 2.3, 3.1)[:p]
        ),
    ),
    "GHVB, beta 0.6 (global)": (_ORDERS, lambda p: momentum_order(MomentumKind.GHVB, p, 0.6)),
    "flow multistep": (
        _ORDERS,
        lambda p: slope_order(
            Velocity(points=tuple(range(-p, 0))), flow(), 0.5, _UNEQUAL[:p], largest=0.02
        ),
    ),
    "BDIA, gamma 1": (
        (2,),
        lambda _: slope_order(Bidirectional(gamma=1.0), edm(), 1.0, _EQUAL[:2]),
    ),
}

_WEAK: dict[str, tuple[tuple[int, ...], Callable[[int], float]]] = {
    "DDPM, DDIM eta 1, Euler ancestral": ((1,), lambda _: ancestral_order()),
    "DDIM eta 0.5": ((1,), lambda _: ancestral_order(0.5)),
    "Heun ancestral": ((2,), lambda _: two_call_order("heun")),
    "DPM-Solver-2 ancestral": ((2,), lambda _: two_call_order("dpm_2")),
    "DPM-Solver++(2S) ancestral": ((2,), lambda _: two_call_order("dpmpp_2s")),
    "Euler churn, EDM Heun churn": ((1, 2), lambda p: churn_order(("euler", "heun")[p - 1])),
    "Heun with restarts": ((2,), lambda _: restart_order()),
    "SDE-DPM-Solver++ (1, 2M, 3M)": ((1, 2, 3), sde_order),
    "SDE-DPM-Solver++(2M), heun": ((2,), lambda p: sde_order(p, variant="heun")),
    "SDE-DPM-Solver": ((1, 2), lambda p: sde_order(p, "noise")),
    "DPM-Solver++(SDE)": ((2,), lambda _: dpmpp_sde_order()),
    "SA-Solver, predictor": ((1, 2, 3), sa_order),
    "SA-Solver, predictor, tau 0": ((1, 2, 3), lambda p: sa_order(p, tau=0.0)),
    "SA-Solver, corrector of order p + 1": ((1, 2, 3), lambda p: sa_order(p, p + 1)),
    "ER-SDE": ((1, 2, 3), er_sde_order),
    "SEEDS (1, 2, 3)": ((1, 2, 3), seeds_order),
    "SEEDS, noise prediction": ((1, 2, 3), lambda p: seeds_order(p, "noise")),
}


def main() -> None:
    """Prints two Markdown tables."""
    _print("rule", _METHODS)
    print()
    _print("solver with noise, eta 1", _WEAK)


def _print(head: str, methods: dict[str, tuple[tuple[int, ...], Callable[[int], float]]]) -> None:
    print(f"| {head} | p = 1 | p = 2 | p = 3 | p = 4 |")
    print("|---|---|---|---|---|")
    for name, (orders, measure) in methods.items():
        cells = [f"{measure(p):.2f}" if p in orders else "" for p in _ORDERS]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
