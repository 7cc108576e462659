"""From a study in its database to one HTML file."""

from dataclasses import dataclass
from pathlib import Path

from s3search.files import write_text
from s3search.show.report.data import collect
from s3search.show.report.page import render
from s3search.show.report.samples import NoSamples, make_samples
from s3search.study.database.store import open_study


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What was written, and why it shows no samples where it shows none."""

    study: str
    path: Path
    n_bytes: int
    no_samples: str | None


def write_report(url: str, name: str, path: Path, *, n_samples: int) -> Written:
    """Writes the page whole, or nothing; no samples with ``n_samples`` 0.

    Samples load the model that the study names; the page says so where it cannot be loaded here.
    Raises `StudyConflict` for a study that is not there or that has no validated schedule yet.
    """
    with open_study(url, name) as store:
        collected = collect(store)
        samples = make_samples(store.config, collected.picks, n_samples)
    text = render(collected, samples)
    write_text(path, text)
    return Written(
        study=name,
        path=path,
        n_bytes=len(text.encode()),
        no_samples=samples.reason if isinstance(samples, NoSamples) else None,
    )
