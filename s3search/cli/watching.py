"""`status --watch`: looks at the database again and again."""

import json
import sys
import time
from typing import Any

from s3search.cli.output import OUT
from s3search.errors import EvaluationFailed, InvalidConfig


def watch(url: str, study: str | None, every: float, *, as_json: bool) -> None:
    """Shows a study, or all of a database, every so many seconds until nothing is left to wait
    for; raises `EvaluationFailed` where a study failed.

    An interrupted study is waited for: whoever stopped it may resume it.
    """
    from s3search.show.terminal.watching import only_changes, watching
    from s3search.study.database.store import study_names

    if study is None and not study_names(url):
        raise InvalidConfig("there is no study to watch yet; `s3search launch` makes one")
    if as_json:
        show = only_changes(_print_line)
        seen = _until_over(url, study, every, show)
    else:
        with watching(OUT) as show:
            seen = _until_over(url, study, every, show)
    failed = [each.study for each in seen if each.state == "failed"]
    if failed:
        raise EvaluationFailed(
            f"{', '.join(failed)} failed; `s3search launch` says why and resumes"
        )


def _until_over(url: str, study: str | None, every: float, show: Any) -> list[Any]:
    """The last look, at which every study was done or had failed."""
    from s3search.study.database.store import open_study, study_names
    from s3search.study.results.watching import look

    while True:
        seen = []
        for name in [study] if study is not None else study_names(url):
            with open_study(url, name) as store:
                seen.append(look(store))
        show(seen)
        if all(each.state in ("done", "failed") for each in seen):
            return seen
        time.sleep(every)


def _print_line(seen: Any) -> None:
    from s3search.show.terminal.watching import watched_json

    sys.stdout.write(json.dumps(watched_json(seen)) + "\n")
    sys.stdout.flush()
