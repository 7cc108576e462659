"""Studies that are watched from elsewhere: the same table as the driver's own, or plain lines."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from s3search.show.terminal.numbers import duration
from s3search.show.terminal.progress import in_words, progress_line, progress_table
from s3search.study.results.progress import RECENT_SECONDS, Progress
from s3search.study.results.watching import Watched

_SEEN = ("whole", "today", "words")  # what is there for eyes alone

Show = Callable[[Sequence[Watched]], None]


@contextmanager
def watching(console: Console) -> Iterator[Show]:
    """Tables that stay in place on a terminal; elsewhere a line for each study that changed."""
    words: defaultdict[str, Callable[[Progress], Progress]] = defaultdict(in_words)

    def worded(seen: Watched) -> Watched:
        return replace(seen, progress=words[seen.study](seen.progress))

    if not console.is_terminal:
        yield only_changes(
            lambda seen: console.print(watched_line(worded(seen)), highlight=False, soft_wrap=True)
        )
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda studies: live.update(
            Group(*(_drawn(worded(seen)) for seen in studies)), refresh=True
        )


def only_changes(tell: Callable[[Watched], None]) -> Show:
    """Tells of each study what it was not told before; time alone changes nothing."""
    shown: dict[str, object] = {}

    def show(studies: Sequence[Watched]) -> None:
        for seen in studies:
            found = (seen.state, seen.progress.found)
            if shown.get(seen.study) != found:
                shown[seen.study] = found
                tell(seen)

    return show


def watched_line(seen: Watched) -> str:
    """All of it on one line."""
    note = _note(seen)
    return f"{seen.study}: {progress_line(seen.progress)}" + (f"  |  {note}" if note else "")


def watched_json(seen: Watched) -> dict[str, Any]:
    """What was seen of a study as plain data, for ``--json``."""
    progress = seen.progress
    sums = {"network_calls": progress.network_calls, "worker_seconds": progress.worker_seconds}
    return {
        "study": seen.study,
        "state": seen.state,
        "metric": progress.words.kind,
        "direction": progress.words.direction.value,
        **{key: value for key, value in asdict(progress).items() if key not in _SEEN},
        **sums,
        "measured": progress.measured,
        "silent_seconds": seen.silent_seconds,
    }


def _drawn(seen: Watched) -> RenderableType:
    table, note = progress_table(seen.progress, seen.study), _note(seen)
    return Group(table, Text(note, style="yellow"), "") if note else Group(table, "")


def _note(seen: Watched) -> str:
    """What a person might have to do something about."""
    if seen.state in ("interrupted", "failed"):
        return f"{seen.state}; the same `s3search launch` resumes it"
    silent = seen.silent_seconds
    if seen.is_running and silent is not None and silent > RECENT_SECONDS:
        return f"no worker has answered for {duration(silent)}"
    return ""
