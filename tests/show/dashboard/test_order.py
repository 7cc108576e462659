"""The graphs of a study stand in the same order after each start of the server."""

import random

from s3search.show.dashboard.order import in_order


def test_graphs_are_read_from_what_was_found_to_what_it_cost() -> None:
    names = [
        "s3search-front",
        "s3search-progress-nfe5",
        "s3search-compared-nfe5",
        "s3search-times-nfe5",
        "s3search-choices-nfe5",
        "s3search-predictor-nfe5",
        "s3search-proxy-gaussian-nfe5",
        "s3search-proxy-mixture-nfe5",
        "s3search-progress-nfe10",
        "s3search-cost",
        "a graph of somebody else",
        "s3search-unknown-nfe5",
    ]
    mixed = random.Random(0).sample(names, len(names))
    assert list(in_order({name: name.upper() for name in mixed}).items()) == [
        (name, name.upper()) for name in names
    ]
