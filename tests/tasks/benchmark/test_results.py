"""Medians, order and layout of a benchmark's rows, on rows made up here."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from s3search.tasks.benchmark.pictures import draw_ladder, draw_quality
from s3search.tasks.benchmark.plan import PUBLISHED
from s3search.tasks.benchmark.results import Row, method_order, summaries, write_csv
from s3search.tasks.benchmark.tables import markdown

ROW = Row(
    method="s3",
    algorithm="s3",
    ladder="race",
    nfe=5,
    seed=0,
    budget=100,
    measured=80,
    network_calls=500_000,
    wall_seconds=30.0,
    worker_seconds=24.0,
    driver_seconds=6.0,
    driver_share=0.2,
    held_out=0.05,
    standard_error=0.004,
    held_out_images=10_000,
    n_images=1000,
    best_published=0.1,
    real_images=0.03,
    schedule_id="a" * 32,
    study="s3, NFE 5, seed 0, budget 100",
)
ROWS = [
    ROW,
    replace(ROW, seed=1, held_out=0.07, network_calls=510_000),
    replace(ROW, seed=2, held_out=0.04, network_calls=900_000),
    replace(ROW, budget=20, network_calls=100_000, held_out=0.08),
    replace(ROW, method="usf", held_out=None, schedule_id=None, driver_share=None),
    replace(ROW, method="usf", seed=1, held_out=0.3),
    replace(ROW, method="s3 up to race", held_out=0.06),
    replace(ROW, method=PUBLISHED, budget=None, held_out=0.1),
]


def test_a_summary_is_the_median_and_the_range_over_seeds() -> None:
    largest = next(s for s in summaries(ROWS) if (s.method, s.budget) == ("s3", 100))
    assert (largest.n_seeds, largest.n_found) == (3, 3)
    assert (largest.held_out, largest.lowest, largest.highest) == (0.05, 0.04, 0.07)
    assert largest.network_calls == 510_000
    assert largest.gain == pytest.approx(2.0)
    assert largest.gain_less_bias == pytest.approx(3.5)
    unknown = replace(largest, real_images=None)
    assert (unknown.gain, unknown.gain_less_bias) == (largest.gain, None)
    assert replace(largest, real_images=0.05).gain_less_bias is None


def test_a_seed_that_found_nothing_is_told_and_left_out_of_the_median() -> None:
    usf = next(s for s in summaries(ROWS) if s.method == "usf")
    assert (usf.n_seeds, usf.n_found, usf.held_out) == (2, 1, 0.3)
    assert "0.3000, 1 of 2 seeds" in markdown(summaries(ROWS), ROWS)
    nothing = [replace(ROW, held_out=None)]
    assert "nothing found" in markdown(summaries(nothing), nothing)


def test_summaries_come_by_calls_method_and_budget() -> None:
    found = summaries([*ROWS, replace(ROW, nfe=3)])
    assert [(s.nfe, s.method, s.budget) for s in found] == [
        (3, "s3", 100),
        (5, PUBLISHED, None),
        (5, "s3 up to race", 100),
        (5, "s3", 20),
        (5, "s3", 100),
        (5, "usf", 100),
    ]


def test_rungs_come_in_the_order_in_which_they_are_added() -> None:
    labels = ["usf", "s3", "s3 up to polish", "s3 up to mixture", "s3 without ladder", PUBLISHED]
    assert method_order(labels) == [
        PUBLISHED,
        "s3 without ladder",
        "s3 up to mixture",
        "s3 up to polish",
        "s3",
        "usf",
    ]


def test_the_table_says_what_is_counted_and_has_a_line_for_each_summary() -> None:
    text = markdown(summaries(ROWS), ROWS)
    assert "Fréchet distance of 10,000 images on held-out noise" in text
    assert "measurements of 1,000 images" in text
    line = "| s3 | 100 | 0.51 M | 0.0500 (0.0400 to 0.0700) | 2.00 | 3.50 | 20% |"
    assert line in text.splitlines()
    assert f"| {PUBLISHED} |  | 0.50 M | 0.1000 (1 seed) |  |  | 20% |" in text.splitlines()


def test_the_csv_has_every_row_with_empty_fields_for_no_number(tmp_path: Path) -> None:
    write_csv(ROWS, tmp_path / "results.csv")
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == len(ROWS)
    assert [row["method"] for row in read][:2] == [PUBLISHED, "s3 up to race"]
    usf = next(row for row in read if row["method"] == "usf" and row["seed"] == "0")
    assert (usf["held_out"], usf["schedule_id"], usf["network_calls"]) == ("", "", "500000")


def test_pictures_are_drawn_for_one_panel_and_for_several(tmp_path: Path) -> None:
    widths = []
    for rows in (ROWS, [*ROWS, *(replace(row, nfe=8) for row in ROWS)]):
        for draw in (draw_quality, draw_ladder):
            path = tmp_path / f"{draw.__name__}.png"
            draw(summaries(rows), path)
            header = path.read_bytes()[:24]
            assert header.startswith(b"\x89PNG")
            widths.append(int.from_bytes(header[16:20], "big"))
    assert widths[2] > widths[0]
    assert widths[3] > widths[1]
