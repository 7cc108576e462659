"""What a model is: its sizes, its blocks, their cost."""

from collections.abc import Iterator, Sequence

from rich.table import Table

from s3search.evaluation.inspection import Inspection
from s3search.show.terminal.numbers import shape_text


def inspection_lines(found: Inspection) -> Iterator[str]:
    """What a model is, but for its blocks."""
    shape = shape_text(found.sample_shape)
    yield f"{found.loader}: {found.process.type} process, sample shape {shape}"
    if found.n_parameters is not None and found.layers is not None:
        cost = f"{found.layers.multiply_adds:,} multiply-adds a call"
        yield f"{found.n_parameters:,} parameters, {cost}"
    given = ", ".join(f"{name} {shape_text(shape)}" for name, shape in found.condition.items())
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
        table.add_row(str(i), name, layer.kind, shape_text(layer.shape), share)
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
