"""The printed comparison: it fits 80 columns and says what the numbers say."""

import shlex
from typing import Any

import pytest
from rich.console import Console

from s3search.search.trial import BASELINE, Origin
from s3search.show.terminal.comparison import comparison_lines, comparison_table
from s3search.show.terminal.verdict import next_lines, verdict_lines
from s3search.study.results.claims import Verdict

_NAMES = ("DPM-Solver++(3M), quadratic, denoise 0.06", "UniPC-3 bh2, logsnr, stop 0.02")


def _measured(extractor: str, value: float) -> dict[str, Any]:
    return {
        "extractor": extractor,
        "value": value,
        "interval_95": (0.9 * value, 1.1 * value),
        "difference": value - 0.04,
        "difference_95": (value - 0.05, value - 0.03),
        "ratio": value / 0.04,
        "ratio_95": (value / 0.05, value / 0.03),
    }


def _row(name: str, value: float, *, is_baseline: bool = True) -> dict[str, Any]:
    return {
        **_measured("digits-a", value),
        "schedule_id": "0123456789abcdef",
        "name": name,
        "origin": Origin.of_text(BASELINE + name if is_baseline else name).kind.value,
        "is_baseline": is_baseline,
        "is_winner": not is_baseline,
        "nfe": 5,
        "n_images": 10_000,
        "noise_seed": 1,
        "search_n_images": 1000,
        "search_value": 0.38,
        "witness": _measured("digits-b", 1.1 * value),
    }


def _found() -> dict[str, Any]:
    found, *published = (
        _row("polish", 0.04, is_baseline=False),
        *(_row(name, value) for name, value in zip(_NAMES, (24.1523, 0.0973), strict=True)),
    )
    return {
        "rows": [found, *published],
        "claims": [{"nfe": 5, "says": ["the verdict", "the reasons"]}],
        "vetoed": [],
        "floor": [
            {"extractor": "digits-a", "value": 0.033},
            {"extractor": "digits-b", "value": 0.031},
        ],
    }


def _printed(width: int) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(comparison_table(_found()))
    return capture.get()


def test_the_table_fits_80_columns_without_a_cut() -> None:
    text = _printed(80)
    assert max(map(len, text.splitlines())) <= 80
    for cell in (
        "0.0973",
        "0.088 to 0.107",  # the interval
        "+0.0573",
        "+0.047 to +0.067",  # the paired difference
        "2.43x",
        "1.95 to 3.24",  # the paired ratio
        "21.74 to 26.57",
        "483.0 to 805.1",
        "0.0330",  # the floor in the first extractor
        "0.0310",
        *_NAMES,  # whole, on a line
        "exported",
    ):
        assert cell in text
    assert text.index("0.0400") < text.index("0.0973") < text.index("24.1523")


def test_a_database_of_before_replicates_prints_without_intervals_of_pairs() -> None:
    found = _found() | {"floor": [], "claims": []}
    for row in found["rows"]:
        row |= {"difference_95": None, "ratio_95": None, "witness": None}
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(comparison_table(found))
    text = capture.get()
    assert "0.088 to 0.107" in text
    assert "resampled" not in text
    assert "digits-b" not in text
    assert list(comparison_lines(found)) == []


def test_the_lines_are_the_claims_and_what_real_images_get() -> None:
    first, second, floor = comparison_lines(_found())
    assert (first, second) == ("NFE 5: the verdict", "NFE 5: the reasons")
    assert "no schedule should be expected to beat by much" in floor


def test_what_is_exported_stands_first_whatever_its_distance() -> None:
    found = _found()
    found["rows"][0] |= {"is_winner": False}
    found["rows"][2] |= {"is_winner": True}
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        console.print(comparison_table(found))
    text = capture.get()
    assert text.index("0.0973") < text.index("0.0400") < text.index("24.1523")
    (marked,) = (line for line in text.splitlines() if "exported" in line)
    assert "0.0973" in marked


def test_the_end_says_the_verdict_against_published_and_against_what_runs_today() -> None:
    found = _found()
    stock = _row("EulerDiscreteScheduler of the pipeline", 0.08) | {"ratio_95": (1.5, 2.6)}
    found["rows"] += [_row("k-diffusion euler", 0.05), stock]
    found["claims"] = [{"nfe": 5, "verdict": "beats", "says": ["x"]}]
    found["against_published"] = [{"nfe": 5, "published": _NAMES[1]}]
    assert list(verdict_lines(found)) == [
        f"verdict for 5 calls: better than every published sampler measured, {_NAMES[1]} the "
        "best of them",
        "  against what runs today, EulerDiscreteScheduler of the pipeline: 0.0400 to its 0.0800, "
        "2.00 times lower (95 % 1.50 to 2.60)",
    ]
    found |= {"rows": found["rows"][1:2], "against_published": []}
    found["claims"][0] |= {"says": ["no schedule that the search found is validated", "why"]}
    assert list(verdict_lines(found)) == [
        "verdict for 5 calls: no schedule that the search found is validated"
    ]


@pytest.mark.parametrize("verdict", list(Verdict))
def test_every_verdict_has_words(verdict: Verdict) -> None:
    found = _found() | {"claims": [{"nfe": 5, "verdict": verdict.value, "says": ["x"]}]}
    found["against_published"] = [{"nfe": 5, "published": _NAMES[1]}]
    assert _NAMES[1] in next(verdict_lines(found))


def test_the_next_command_can_be_typed() -> None:
    where = "sqlite:////a b/study.db"
    command = ("export", "mine", "--nfe", "5")
    lines = list(next_lines(where, command, is_default=False))
    assert where in lines[0]
    typed = shlex.split(lines[1].removeprefix("next: "))
    assert typed[:3] == ["s3search", "export", "mine"]
    assert typed[-2:] == ["--storage", where]
    assert "--storage" not in list(next_lines(where, command, is_default=True))[1]
