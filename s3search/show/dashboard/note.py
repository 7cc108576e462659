"""The note on a study: what was searched, what was found, what it cost, how to take it along.

Optuna dashboard shows Markdown without raw HTML.  Every name is escaped, so that none becomes a
link, a picture or a heading.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from s3search.show.report.data import Collected
from s3search.show.report.page import number
from s3search.show.terminal.comparison import comparison_lines
from s3search.show.terminal.status import measured_words
from s3search.study.metric_words import MetricWords

_MARKUP = re.compile(r"([\\`*_\[\]<>|~$&!#:@]|(?<=www)\.)")  # what begins a markup or a link
_OURS_ENDS = (
    "*Written by s3search, anew at the end of each launch; what stands below this line is kept.*"
)


def merged(ours: str, existing: str) -> str:
    """Our note, and below it what people wrote: all of a note that was not ours, or what stood
    below ours.
    """
    _, marker, theirs = existing.rpartition(_OURS_ENDS)
    theirs = theirs if marker else existing
    return f"{ours}\n\n{theirs.strip()}\n" if theirs.strip() else f"{ours}\n"


def note_text(collected: Collected) -> str:
    """The note, which ends with a line that parts it from people's own."""
    blocks = [
        *_heading(collected),
        "## Found",
        "\n".join(_table(collected)),
        "\n".join(f"- {plain(line)}" for line in comparison_lines(dict(collected.comparison))),
        "## Spent",
        _spent(collected),
        "## Take it along",
        "\n".join(("```", *_commands(collected), "```")),
        "## Where it comes from",
        "\n".join(
            _rows(("", ""), [(plain(k), plain(v)) for k, v in collected.provenance.items()])
        ),
        "---",
        _OURS_ENDS,
    ]
    return "\n\n".join(block for block in blocks if block)


def plain(text: object) -> str:
    """Text that Markdown shows as it stands, on one line."""
    return _MARKUP.sub(r"\\\1", " ".join(str(text).split()))


def _heading(collected: Collected) -> Iterator[str]:
    status, where = collected.status, collected.provenance
    calls = ", ".join(map(str, collected.best))
    yield f"# {plain(status['study'])}"
    yield (
        f"Schedules of {calls} network calls for the model {plain(where['model'])}, searched by "
        f"{plain(where['search'])}; the study is {plain(status['state'])}. {_metric(collected)}; "
        "a trial's is that of the search's own noise and few images, and only ranks."
    )
    yield (
        f"Served by `s3search dashboard`, this study also has [its own page]"
        f"(/studies/{quote(status['study'], safe='')})."
    )


def _metric(collected: Collected) -> str:
    """What numbers are, and which scores are better."""
    words = collected.words
    judge = plain(collected.provenance[words.judge])
    if words.is_score:
        return f"Scores are means of {judge} over the images, {words.which_is_better}"
    titles = words.title.replace("distance", "distances")
    return f"Distances are {titles} in the features of {judge}"


def _table(collected: Collected) -> Iterator[str]:
    words = collected.words
    held_out, published_value = f"held-out {words.noun}", f"its {words.noun}"
    is_ratio = words.is_minimized
    apart = ["ratio to the best found" if is_ratio else "found less the best published"]
    if not words.is_score:
        apart.append("ratio less what real images have")
    heads = (
        "NFE",
        "exported",
        held_out,
        "95 %",
        "best published measured",
        published_value,
        *apart,
        "images",
        "optimism",
    )
    against = {each["nfe"]: each for each in collected.comparison["against_published"]}
    published = {
        row["nfe"]: row
        for row in sorted(
            collected.comparison["rows"], key=lambda row: -words.direction.loss(row["value"])
        )
        if row["is_baseline"]
    }
    lines = []
    for nfe, (schedule, best) in collected.best.items():
        rival = published.get(nfe)
        far = against.get(nfe)
        lines.append(
            (
                str(nfe),
                plain(best.name) if best.is_baseline else f"found, `{schedule.id[:8]}`",
                number(best.value),
                _between(best.held_out.interval, 4),
                "-" if rival is None else plain(rival["name"]),
                "-" if rival is None else number(rival["value"]),
                *_apart(far, words),
                f"{best.n_images:,}",
                number(best.optimism),
            )
        )
    yield from _rows(heads, lines)


def _spent(collected: Collected) -> str:
    status = collected.status
    dearest = ", ".join(
        f"{plain(cost.name)} {100 * cost.calls_share:.0f} %"
        for cost in sorted(collected.costs, key=lambda cost: -cost.calls_share)
        if cost.calls_share >= 0.01
    )
    return (
        f"{measured_words(status)}; {status['validated']:,} validations; "
        f"{status['failed']:,} failed. "
        f"{status['network_calls']:,} network calls (images times calls): {dearest}. "
        f"{status['worker_seconds']:,.0f} worker seconds."
    )


def _commands(collected: Collected) -> Iterator[str]:
    study = collected.status["study"]
    for nfe in collected.best:
        file = f"schedule-{nfe}.json"
        yield shlex.join(["s3search", "export", study, "--nfe", str(nfe), "-o", file])
    yield shlex.join(["s3search", "compare", study])
    yield shlex.join(["s3search", "report", study, "-o", "report.html"])


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (heads, ("---",) * len(heads), *rows):
        yield f"| {' | '.join(cells)} |"


def _apart(far: Mapping[str, Any] | None, words: MetricWords) -> Iterator[str]:
    """How far found and published are apart: ratios, or the difference of what is maximised."""
    if words.is_minimized:
        yield _ratio(far)
    elif far is None:
        yield "-"
    else:
        less = far["difference_95"]
        between = None if less is None else (-less[1], -less[0])
        yield f"{-far['difference']:+.4f} {_between(between, 4)}"
    if not words.is_score:
        yield _ratio(None if far is None else far["less_real_images"])


def _ratio(numbers: Mapping[str, Any] | None) -> str:
    if numbers is None:
        return "-"
    return f"{number(numbers['ratio'], 2)} {_between(numbers['ratio_95'], 2)}"


def _between(interval: tuple[float, float] | None, decimals: int) -> str:
    if interval is None:
        return ""
    return f"({interval[0]:.{decimals}f} to {interval[1]:.{decimals}f})"
