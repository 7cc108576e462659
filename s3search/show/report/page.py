"""The page itself: one HTML file that loads nothing.

Every text passes through the template's escaping; what is inserted as it stands is our own SVG,
style sheet and script.  A content security policy names the script by its hash, so that the page
runs no other one and asks for nothing from any network.
"""

import base64
import hashlib
import json
import math
import shlex
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from s3search.show.pictures import schedule_figure, time_lines
from s3search.show.report import graphs
from s3search.show.report.data import Collected, Pick
from s3search.show.report.samples import NoSamples, Samples
from s3search.show.report.svg import svg_of
from s3search.show.terminal.comparison import comparison_lines, real_images_of, row_order
from s3search.show.terminal.gains import gain_lines
from s3search.show.terminal.rungs import rung_lines
from s3search.show.terminal.status import measured_words
from s3search.study.results.claims import Verdict

_FOLDER = Path(__file__).parent
_VERDICTS = {
    Verdict.BEATS.value: "better than the published",
    Verdict.LOSES.value: "worse than the published",
    Verdict.UNDECIDED.value: "undecided: noise may decide",
    Verdict.NOT_COVERED.value: "too little of the published is measured",
}


def style_sheet() -> str:
    """What our pages look like."""
    return _own("page.css")


def script() -> str:
    """What our pages run."""
    return _own("page.js")


def hash_of(script: str) -> str:
    """How a content security policy names a script that may run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def render(
    collected: Collected,
    samples: Samples | NoSamples,
    links: Sequence[tuple[str, str]] = (),
) -> str:
    """The whole page as text; ``links`` (text, address) lead to pages beside it, if there are."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": lambda value: f"{value:,}",
        "measured": measured_words,
        "number": number,
        "range": _range,
        "share": lambda value: f"{100 * value:.0f} %",
        "capitalized": lambda text: text[:1].upper() + text[1:],
    }
    template = environment.from_string(_own("page.html.j2"))
    rows = collected.comparison["rows"]
    return template.render(
        c=collected,
        words=collected.words,
        study=collected.status["study"],
        sections=[_section(collected, nfe) for nfe in collected.best],
        says=list(comparison_lines(dict(collected.comparison))),
        second=next((row["witness"]["extractor"] for row in rows if row["witness"]), None),
        real_images=real_images_of(collected.comparison),
        rungs=collected.status["ladder"],
        parts=list(rung_lines(collected.status["parts"])),
        gains=list(gain_lines(collected.status["gains"])),
        ladder=list(_ladders(collected)),
        calibration=list(_calibrations(collected)),
        picture=_two_of(collected),
        verdicts=_VERDICTS,
        samples=None if isinstance(samples, NoSamples) else samples,
        no_samples=samples.reason if isinstance(samples, NoSamples) else "",
        commands=_commands(collected),
        links=links,
        style=Markup(style_sheet()),
        script=Markup(script()),
        script_hash=hash_of(script()),
    )


def _two_of(collected: Collected) -> Markup:
    """The found and the best published schedule of the first number of calls, for the top of the
    page.
    """
    nfe, words = next(iter(collected.best)), collected.words
    rows = [row for row in collected.comparison["rows"] if row["nfe"] == nfe]
    shown = []
    for is_baseline in (False, True):
        own = [row for row in rows if row["is_baseline"] is is_baseline]
        shown += sorted(own, key=lambda row: words.direction.loss(row["value"]))[:1]
    return _svg(
        lambda: graphs.comparison_figure(shown, words),
        "verdict",
        f"{words.noun.capitalize()}s at NFE {nfe} with 95 % intervals: "
        + "; ".join(f"{graphs.row_name(row)} {row['value']:.4f}" for row in shown)
        + ".",
    )


def _section(collected: Collected, nfe: int) -> dict[str, Any]:
    """What the page shows of one number of calls."""
    rows = [row for row in collected.comparison["rows"] if row["nfe"] == nfe]
    words = collected.words
    schedule, best = collected.best[nfe]
    progress = next(each for each in collected.progress if each.nfe == nfe)
    picks = collected.picks[nfe]
    published = next((pick for pick in picks if pick.is_baseline), None)
    shown = [("The winner", schedule, best.name if best.is_baseline else "found")]
    if published is not None and published.schedule.id != schedule.id:
        shown.append(("The best published", published.schedule, published.name))
    found = "nothing" if not progress.found else f"a {words.noun} of {progress.found[-1][1]:.4g}"
    return {
        "nfe": nfe,
        "rows": sorted(rows, key=partial(row_order, words.direction)),
        "row_name": graphs.row_name,
        "best": best,
        "schedule": schedule,
        "file": _data_url(json.dumps(schedule.to_dict(), indent=1)),
        "comparison": _svg(
            lambda: graphs.comparison_figure(rows, words),
            f"comparison-{nfe}",
            f"Held-out {words.noun}s at NFE {nfe} with 95 % intervals; the table has the numbers.",
        ),
        "progress": _svg(
            lambda: graphs.progress_figure(progress),
            f"progress-{nfe}",
            f"Best {words.noun} so far against network calls at NFE {nfe}: after "
            f"{progress.total_calls:,} calls the search had found {found}.",
        ),
        "times": _svg(
            lambda: graphs.times_figure(picks),
            f"times-{nfe}",
            f"Noise levels over the steps of the {len(picks)} best schedules at NFE {nfe}: "
            + "; ".join(_levels(pick) for pick in picks[:2])
            + ".",
        ),
        "schedules": [
            {
                "title": f"{title}: {name}",
                "lines": time_lines(each),
                "drawing": _svg(
                    lambda each=each: schedule_figure(each),
                    f"schedule-{nfe}-{i}",
                    f"Drawing of schedule {each.id[:8]}; the table below has its steps.",
                ),
            }
            for i, (title, each, name) in enumerate(shown)
        ],
    }


def _ladders(collected: Collected) -> Iterator[tuple[int, Markup]]:
    for nfe in collected.best:
        rungs = [rung for rung in collected.status["ladder"] if rung["nfe"] == nfe]
        if any(rung["next"] is not None for rung in rungs):
            yield (
                nfe,
                _svg(
                    lambda rungs=rungs: graphs.ladder_figure(rungs),
                    f"ladder-{nfe}",
                    f"Rank correlation of each rung with the next at NFE {nfe}; "
                    "the table has the numbers.",
                ),
            )


def _calibrations(collected: Collected) -> Iterator[tuple[int, Markup]]:
    for nfe in collected.best:
        batches = [each for each in collected.calibration if each.nfe == nfe and each.ranks]
        if batches:
            yield (
                nfe,
                _svg(
                    lambda batches=batches: graphs.calibration_figure(batches),
                    f"calibration-{nfe}",
                    f"Predicted against measured ranks of {sum(b.n for b in batches)} schedules "
                    f"at NFE {nfe}; the table has the correlations.",
                ),
            )


def _commands(collected: Collected) -> dict[str, Any]:
    """All that reproduces the page, and the one that exports the first winner."""
    study = collected.status["study"]
    exports = [
        (
            f"the best schedule at NFE {nfe}",
            ["s3search", "export", study, "--nfe", str(nfe), "-o", f"schedule-{nfe}.json"],
        )
        for nfe in collected.best
    ]
    lines = [
        (
            "installs the version that measured",
            ["pip", "install", f"s3search=={collected.code_version}"],
        ),
        ("runs the search again, from the study file below", ["s3search", "launch", "study.toml"]),
        ("the table of this page", ["s3search", "compare", study]),
        *exports,
        ("this page", ["s3search", "report", study, "-o", "report.html"]),
    ]
    return {
        "all": [(what, shlex.join(words)) for what, words in lines],
        "export": shlex.join(exports[0][1]),
    }


def _svg(draw: Any, name: str, description: str) -> Markup:
    return Markup(svg_of(draw, name, description))


def _levels(pick: Pick) -> str:
    ratios = ", ".join(f"{line.ratio:.3g}" for line in time_lines(pick.schedule))
    return f"{pick.label} {ratios}"


def _data_url(text: str) -> str:
    return f"data:application/json;base64,{base64.b64encode(text.encode()).decode()}"


def number(value: float | None, decimals: int = 4) -> str:
    """With four decimals; a dash for what is not known."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.{decimals}f}"


def _range(interval: Sequence[float] | None, form: str = ".4f") -> str:
    return "" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"


def _own(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
