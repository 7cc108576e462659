"""The order of graphs on a study's page.

optuna-dashboard 0.21 collects their ids in a set, so that they stand in another order after each
start of the server, and nothing public decides it: its function is replaced by one that sorts.
"""

import re
from collections.abc import Mapping
from typing import Any

_OURS = re.compile(r"s3search-([a-z]+)(?:-.+?)??(?:-nfe(\d+))?")
_KINDS = ("front", "progress", "compared", "times", "choices", "predictor", "proxy", "cost")
_LAST = 10**9


def in_order(graphs: Mapping[str, str]) -> dict[str, str]:
    """By id: the front, then for each NFE best so far, comparison, times and what explains them,
    the cost, and people's own graphs by name.
    """
    return dict(sorted(graphs.items(), key=lambda item: _place(item[0])))


def keep_order() -> None:
    """Makes optuna-dashboard send graphs `in_order`, in this process."""
    from optuna_dashboard import (  # type: ignore[import-untyped]  # noqa: PLC0415  # an extra
        _app,
        _custom_plot_data,
    )

    def ordered(system_attrs: dict[str, Any]) -> dict[str, str]:
        return in_order(_custom_plot_data.get_plotly_graph_objects(system_attrs))

    _app.get_plotly_graph_objects = ordered


def _place(name: str) -> tuple[int, int, str]:
    ours = _OURS.fullmatch(name)
    if ours is None or ours[1] not in _KINDS:
        return (_LAST + 1, 0, name)
    is_front = ours[1] == "front"
    nfe = int(ours[2]) if ours[2] else (-1 if is_front else _LAST)
    return (nfe, _KINDS.index(ours[1]), name)
