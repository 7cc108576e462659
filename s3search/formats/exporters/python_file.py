"""Python files that hold a schedule and the code that runs it, for runtimes without s3search.

The code is the source of `s3search.formats.exporters.runtime`, which is tested as it
stands; the data are literals.
"""

import inspect
from collections.abc import Callable, Mapping
from pprint import pformat
from textwrap import wrap
from typing import Any

from s3search.formats.exporters.report import LossReport
from s3search.schedules.schedule import Schedule

_WIDTH = 99


def python_file(
    schedule: Schedule,
    report: LossReport,
    *,
    usage: str,
    imports: str = "",
    data: Mapping[str, Any] | None = None,
    code: tuple[Callable[..., Any] | type, ...] = (),
    end: str = "",
) -> str:
    """The text of one file: what it is and loses, its literals by name, its functions."""
    process = schedule.process.type
    about = [
        f"s3search schedule {schedule.id}: {schedule.nfe} network calls, process {process!r}",
        "",
        *usage.splitlines(),
        "",
        *report.lines(),
        *(f"tied to: {each}" for each in schedule.tied_to),
    ]
    lines = [line for text in about for line in wrap(text, _WIDTH - 2) or [""]]
    header = "\n".join(f"# {line}".rstrip() for line in lines)
    literals = "\n".join(
        f"{name} = {pformat(value, width=_WIDTH)}" for name, value in (data or {}).items()
    )
    parts = [header, imports, literals, *(inspect.getsource(one).strip() for one in code), end]
    return "\n\n\n".join(part for part in parts if part) + "\n"
