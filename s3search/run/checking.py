"""The sanity check of a study before its search, and what is kept of it."""

from collections.abc import Sequence

from s3search.cluster.asking import Pool, findings_by
from s3search.errors import InvalidConfig
from s3search.evaluation.record import Finding, Status
from s3search.study.database.store import StudyStore, stored_study
from s3search.study.file.config import StudyConfig
from s3search.study.results.progress import WARNINGS


def checked(config: StudyConfig, pool: Pool) -> tuple[str, ...]:
    """Warnings about what the workers have loaded; raises `InvalidConfig` where every measurement
    would be wrong.  A study that has measured something is not checked again.
    """
    if not config.search.check or _is_measured(config):
        return ()
    findings = findings_by(pool)
    errors = errors_of(findings)
    if errors:
        raise InvalidConfig("; ".join(errors) + "; search.check = false searches it as it is")
    return tuple(each.message for each in findings if each.status is Status.WARNING)


def errors_of(findings: Sequence[Finding]) -> list[str]:
    """What stands against a search."""
    return [each.message for each in findings if each.status is Status.ERROR]


def note_warnings(store: StudyStore, warnings: Sequence[str]) -> None:
    """Keeps them with the study."""
    if warnings:
        store.add_note(WARNINGS, {"messages": list(warnings)})


def _is_measured(config: StudyConfig) -> bool:
    with stored_study(config.storage.url, config.study.name) as store:
        return store is not None and store.measured_with() is not None
