"""What a running search shows: all of it at 80 columns, and nothing that is not known."""

from dataclasses import replace

import pytest
from rich.console import Console, RenderableType

from s3search.search.stages import STAGES, stage_words
from s3search.search.trial import of_pipeline
from s3search.show.terminal.progress import in_words, progress, progress_line, progress_table
from s3search.show.terminal.watching import watched_line, watching
from s3search.study.results.progress import Progress, Quality, RunToday, Spend
from s3search.study.results.watching import Watched

_EARLY = Progress(
    stage="baselines",
    done=3,
    total=400,
    best={},
    best_baseline={5: 12.5},
    held_out={},
    held_out_baseline={},
    predictor={},
    failed=0,
    images_per_second=0.0,
    seconds_left=None,
    workers_busy=2,
    workers=4,
    spend={"search": Spend(3, 15_000, 6.4)},
    budget="400 evaluations x 1,000 images",
    share=0.0075,
)
_LATE = replace(
    _EARLY,
    stage="search",
    done=321,
    share=0.8025,
    best={5: 8.0, 10: 4.0},
    best_baseline={5: 12.0, 10: 5.0},
    held_out={5: 8.2},
    held_out_baseline={5: 12.3, 10: 5.1},
    predictor={5: Quality(0.714, 16), 10: Quality(None, 4)},
    failed=2,
    images_per_second=1234.5,
    seconds_left=3725.0,
    whole=0.425,
    today={5: RunToday.of(of_pipeline("FlowMatchEulerDiscreteScheduler"), 24.0)},
    spend={"search": Spend(300, 1_500_000, 3000.0), "polish": Spend(8, 400_000, 900.6)},
)


def _text(drawing: RenderableType) -> str:
    console = Console(width=80)
    with console.capture() as shown:
        console.print(drawing)
    return shown.get()


def test_the_table_has_all_that_is_known() -> None:
    lines = _text(progress_table(_LATE, "mine")).splitlines()
    whole = " ".join(" ".join(lines).split())
    assert "…" not in whole
    for words in (
        "mine: breeding: new schedules are made of the best so far, and measured",
        "42 %, about 1 h 02 min left",
        "2 of 4 workers busy, 300 schedules measured, 2 failed, 1,234 images/s",
        "NFE best so far today better published on unseen noise published",
        "today: FlowMatchEulerDiscreteScheduler of the pipeline; distances, the lower the better",
    ):
        assert words in whole
    rows = [" ".join(line.split()) for line in lines if line.split()[0] in ("5", "10")]
    assert rows == [
        "5 8.0000 24.0000 3.00x 12.0000 8.2000 12.3000",
        "10 4.0000 - - 5.0000 - 5.1000",
    ]


def test_the_table_has_no_column_for_what_is_not_known() -> None:
    shown = _text(progress_table(_EARLY))
    whole = " ".join(shown.split())
    assert "trying published samplers: what is known: to beat" in whole
    assert "2 of 4 workers busy, 3 schedules measured NFE" in whole
    for word in ("unseen", "today", "images/s", "left", "failed", "%"):
        assert word not in shown


def test_the_line_has_the_same() -> None:
    assert progress_line(_LATE) == (
        "breeding: 42 %, about 1 h 02 min left  |  NFE 5: best so far 8.0000, today 24.0000 "
        "(FlowMatchEulerDiscreteScheduler of the pipeline), published 12.0000, on unseen noise "
        "8.2000 (published 12.3000)  |  NFE 10: best so far 4.0000, published 5.0000, on unseen "
        "noise - (published 5.1000)  |  2 of 4 workers busy  |  300 schedules measured  |  "
        "2 failed  |  1,234 images/s"
    )
    assert "unseen" not in progress_line(_EARLY)


def test_a_launch_elsewhere_than_on_a_terminal_prints_few_lines() -> None:
    console = Console(width=80, force_terminal=False)
    with console.capture() as shown, progress(console) as report:
        for done in (1, 2, 3, 400):
            report(replace(_EARLY, done=done))
            report(replace(_EARLY, stage="validation", done=done))
    assert [line.split("  |")[0] for line in shown.get().splitlines()] == [
        "trying published samplers: what is known: to beat, and to breed from",
        "trying published samplers: 3 schedules measured",
        "final check on unseen noise: the best found beside the best published",
        "final check on unseen noise: 3 schedules measured",
        "trying published samplers: 3 schedules measured",
        "final check on unseen noise: 3 schedules measured",
    ]


def test_a_terminal_says_something_before_anything_is_measured() -> None:
    console = Console(width=80, force_terminal=True, color_system=None)
    with console.capture() as shown, progress(console):
        pass
    assert "loading the model" in shown.get()


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_fits_a_line(name: str) -> None:
    words = stage_words(name)
    assert len(f"{words.title}: {words.about}") < 80
    assert stage_words(f"{name} 2").title == f"{words.title}, round 2"


def test_a_stage_of_ones_own_search_keeps_its_name() -> None:
    assert stage_words("halving").title == "halving"


def test_stages_are_those_that_a_person_sees() -> None:
    """Scores, early stops and measurements of what was polished belong to what goes on."""
    answers = [
        *("gaussian", "baselines", "mixture", "race", "search", "mixture", "race", "search"),
        *("polish", "search", "gaussian", "finals", "baselines", "search", "validation"),
    ]
    seen = in_words()
    stages = [seen(replace(_EARLY, stage=name)).stage for name in answers]
    assert stages == [
        *["baselines"] * 4,
        *["search"] * 4,
        *["polish"] * 3,
        *["finals", "baselines", "search", "validation"],
    ]


def test_a_launch_on_a_terminal_clears_its_table_at_the_end() -> None:
    console = Console(width=80, force_terminal=True, color_system=None)
    with console.capture() as shown, progress(console) as report:
        report(_EARLY)
    assert "2 of 4 workers busy" in shown.get()
    assert shown.get().endswith("\x1b[1A\x1b[2K")


def test_silence_and_interruptions_are_said() -> None:
    seen = Watched(study="mine", state="searching", progress=_EARLY, silent_seconds=50.0)
    assert "answered" not in watched_line(seen)
    silent = replace(seen, silent_seconds=754.0)
    assert watched_line(silent).endswith("  |  no worker has answered for 12:34 min")
    stopped = watched_line(replace(silent, state="interrupted"))
    assert stopped.endswith("interrupted; the same `s3search launch` resumes it")
    console = Console(width=80, force_terminal=True, color_system=None)
    with console.capture() as shown, watching(console) as show:
        show([seen, replace(silent, study="other")])
    assert "mine: trying published samplers: what is known: to beat" in shown.get()
    assert "other: trying published samplers: " in shown.get()
    assert "no worker has answered for 12:34 min" in shown.get()
