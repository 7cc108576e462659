"""What the command line prints: tables, and the progress of a search."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from s3search.comparison_text import against_lines
from s3search.driver import Progress, Report
from s3search.evaluation.inspection import Inspection
from s3search.evaluation.record import Evaluation

_PLAIN_SECONDS = 10.0


@contextmanager
def progress(console: Console) -> Iterator[Report]:
    """A live table on a terminal; elsewhere a plain line now and then."""
    if not console.is_terminal:
        yield _plain_lines(console)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield lambda now: live.update(_progress_table(now))


def _plain_lines(console: Console) -> Report:
    last: dict[str, float] = {}

    def report(now: Progress) -> None:
        is_end = now.total is not None and now.done >= now.total
        if is_end or time.monotonic() - last.get(now.stage, -_PLAIN_SECONDS) >= _PLAIN_SECONDS:
            last[now.stage] = time.monotonic()
            console.print(_progress_line(now), highlight=False, soft_wrap=True)

    return report


def _progress_line(now: Progress) -> str:
    parts = [f"{now.stage}: {_count(now)}"]
    for nfe in sorted({*now.best, *now.best_baseline}):
        found, baseline = _number(now.best.get(nfe)), _number(now.best_baseline.get(nfe))
        parts.append(f"NFE {nfe}: best found {found}, best baseline {baseline}")
    parts.append(f"{now.images_per_second:,.0f} images/s")
    if now.seconds_left is not None:
        parts.append(f"{_duration(now.seconds_left)} left")
    if now.failed:
        parts.append(f"{now.failed} failed")
    return "  |  ".join(parts)


def _progress_table(now: Progress) -> Table:
    left = "" if now.seconds_left is None else f", about {_duration(now.seconds_left)} left"
    failed = f", {now.failed} failed" if now.failed else ""
    title = f"{now.stage}: {_count(now)}, {now.images_per_second:,.0f} images/s{left}{failed}"
    table = Table(title=title, title_justify="left", box=None)
    for heading in ("NFE", "best found", "best baseline", "ratio"):
        table.add_column(heading, justify="right")
    for nfe in sorted({*now.best, *now.best_baseline}):
        found, baseline = now.best.get(nfe), now.best_baseline.get(nfe)
        ratio = "" if found is None or baseline is None else f"{baseline / found:.2f}x"
        table.add_row(str(nfe), _number(found), _number(baseline), ratio)
    return table


def status_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """How far each study is and what it cost, a line per NFE, and what each rung was worth."""
    if not rows:
        yield "no study yet; `s3search demo` makes one"
    for row in rows:
        budget = "" if row["budget"] is None else f" of {row['budget']}"
        yield (
            f"{row['study']}: {row['state']}, {row['evaluations']}{budget} evaluations and "
            f"{row['baselines']} published solvers, {row['failed']} failed, {row['pending']} "
            f"in flight, {row['validated']} validated; {row['network_calls']:,} network calls, "
            f"{row['worker_seconds']:.0f} worker seconds"
        )
        for nfe, best in row["best"].items():
            yield (
                f"  NFE {nfe}: best found {_number(best['search'])} "
                f"(published {_number(best['search_baseline'])}); on held-out noise "
                f"{_number(best['held_out'])} (published {_number(best['held_out_baseline'])})"
            )
        yield from _ladder_lines(row["ladder"])


def _ladder_lines(rungs: list[dict[str, Any]]) -> Iterator[str]:
    """Cost and worth of each rung; correlations are Spearman's, in brackets those inside the best
    quarter.
    """
    if not rungs:
        return
    yield "  rank correlation of each rung with the next (inside the best quarter; schedules):"
    heads = ("NFE", "rung", "images", "seconds", "next", "measured first", "all")
    yield "  " + _ladder_line(heads)
    for rung in rungs:
        cells = (
            str(rung["nfe"]),
            rung["rung"],
            f"{rung['images']:.0f}",
            "-" if rung["seconds"] is None else f"{rung['seconds']:.2g}",
            rung["next"] or "-",
            _worth(rung["seeds"]),
            _worth(rung["end"]) + ("" if rung["used"] else ", left out"),
        )
        yield "  " + _ladder_line(cells)


def _ladder_line(cells: Sequence[str]) -> str:
    nfe, rung, images, seconds, following, first, end = cells
    costs = f"{nfe:>3}  {rung:<11}{images:>7}{seconds:>9}"
    return f"{costs}  {following:<11}{first:<22}{end}".rstrip()


def _worth(worth: dict[str, Any] | None) -> str:
    if worth is None:
        return "-"
    both = [worth["correlation"], worth["top_correlation"]]
    whole, top = ("-" if value is None else f"{value:.2f}" for value in both)
    return f"{whole} ({top}; {worth['n']})"


def best_lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Lines for each NFE: the held-out value with all that it needs, how optimistic the search
    was, and what each extractor says of found against published.
    """
    for row in rows:
        held_out, search = row["held_out"], row["search"]
        interval = held_out["interval_95"]
        shown = "" if interval is None else f" (95 % {interval[0]:.4f} to {interval[1]:.4f})"
        yield f"NFE {row['nfe']}: {row['origin']}, schedule {row['schedule_id']}"
        yield (
            f"  {row['metric']} distance {held_out['value']:.4f}{shown}: "
            f"{held_out['n_images']:,} images, "
            f"held-out noise seed {held_out['noise_seed']}, extractor {row['extractor']}, "
            f"reference {row['reference_digest']}, model {row['model_fingerprint']}"
        )
        ranked = (
            f"  ranked in the search by {search['value']:.4f} "
            f"({search['n_images']:,} images, noise seed {search['noise_seed']})"
        )
        if row["optimism"] is not None:
            ranked += (
                f"; as many held-out images give {search['held_out_value']:.4f}: "
                f"the search was optimistic by {row['optimism']:.4f}"
            )
        yield ranked
        if row["against_published"] is not None:
            yield from against_lines(row["against_published"], "  ")


def evaluation_line(evaluation: Evaluation) -> str:
    """One measurement with everything it needs."""
    error = evaluation.standard_error
    spread = "" if error is None else f" (standard error {error:.4f})"
    return (
        f"{evaluation.metric} distance {evaluation.value:.4f}{spread}: "
        f"{evaluation.n_images:,} images, noise seed {evaluation.noise_seed}, "
        f"NFE {evaluation.nfe}, extractor {evaluation.extractor}, "
        f"reference {evaluation.reference_digest}, model {evaluation.model_fingerprint}, "
        f"{evaluation.seconds:.2f} s on {evaluation.device}"
    )


def _count(now: Progress) -> str:
    return (
        f"{now.done} evaluations" if now.total is None else f"{now.done}/{now.total} evaluations"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes}:{rest:02d} min"


def inspection_lines(found: Inspection) -> Iterator[str]:
    """What a model is, but for its blocks."""
    shape = _shape(found.sample_shape)
    yield f"{found.loader}: {found.process.type} process, sample shape {shape}"
    if found.n_parameters is not None and found.layers is not None:
        cost = f"{found.layers.multiply_adds:,} multiply-adds a call"
        yield f"{found.n_parameters:,} parameters, {cost}"
    given = ", ".join(f"{name} {_shape(shape)}" for name, shape in found.condition.items())
    yield f"condition: {given or 'none'}"
    if found.n_links:
        yield f"skip connections: {found.n_links}"
    if found.layers is None or not found.layers.layers:
        yield "no block can be left out of a call"


def blocks_table(found: Inspection) -> Table | None:
    """The blocks that a schedule may leave out, those inside others set in."""
    if found.layers is None or not found.layers.layers:
        return None
    table = Table(box=None, pad_edge=False)
    for heading in ("", "block", "kind", "shape", "share"):
        table.add_column(
            heading, justify="right" if heading in ("", "share") else "left", overflow="fold"
        )
    for i, layer in enumerate(found.layers.layers):
        name = layer.name if layer.inside is None else f"  {layer.name}"
        share = f"{100 * found.layers.share(i):.1f} %"
        table.add_row(str(i), name, layer.kind, _shape(layer.shape), share)
    return table


def costs_table(calls: Sequence[tuple[tuple[int, ...], float]]) -> Table:
    """The blocks that each call of a schedule leaves out, and its cost."""
    table = Table(box=None, pad_edge=False)
    for heading in ("call", "cost"):
        table.add_column(heading, justify="right")
    table.add_column("blocks left out", overflow="fold")
    for j, (skipped, cost) in enumerate(calls):
        table.add_row(str(j), f"{cost:.3f}", ", ".join(map(str, skipped)))
    return table


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
