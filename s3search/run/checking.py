"""The sanity check of a study before its search."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from s3search.cluster.asking import Pool, findings_by
from s3search.errors import InvalidConfig
from s3search.evaluation.record import Finding, Status
from s3search.evaluation.sanity.checking import FEATURES, SCORE
from s3search.evaluation.sanity.rungs import GRADIENT, GUARDS, REAL, SECOND
from s3search.processes import NoiseProcess
from s3search.run.guard_check import guard_findings
from s3search.search.ladder import LadderRung
from s3search.study.database.store import stored_study
from s3search.study.file.config import StudyConfig

_RUNG_OF = {GRADIENT: LadderRung.POLISH} | {rung.value: rung for rung in LadderRung}
_OUTSIDE = (SECOND, REAL, GUARDS)  # of any search, whatever its ladder


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What is to be told of a study before its search."""

    warnings: tuple[str, ...] = ()
    rungs: tuple[Finding, ...] = ()  # of the parts that this search has: they work, or are absent

    @property
    def note(self) -> Mapping[str, Any]:
        """The rungs in plain data."""
        return {
            "rungs": [
                {"rung": own.check, "works": own.status is Status.OK, "says": own.message}
                for own in self.rungs
            ]
        }


def checked(config: StudyConfig, process: NoiseProcess, pool: Pool) -> Checked:
    """What a few calls tell of what the workers have loaded; raises `InvalidConfig` where every
    measurement would be wrong.  A study that has measured something is not checked again.
    """
    if not config.search.check:
        return Checked()
    with stored_study(config.storage.url, config.study.name) as store:
        if store is not None and store.measured_with() is not None:
            return Checked()
    findings = [each for each in findings_by(pool) if _is_asked(config, each)]
    if not any(each.status is Status.ERROR for each in findings):
        findings += guard_findings(config, process, pool)
    errors = [each for each in findings if each.status is Status.ERROR]
    if errors:
        may_work = any(each.check not in (FEATURES, SCORE) for each in errors)
        remedy = ["search.check = false searches it as it is"] if may_work else []
        raise InvalidConfig("; ".join([*(each.message for each in errors), *remedy]))
    return Checked(
        warnings=tuple(each.message for each in findings if each.status is Status.WARNING),
        rungs=tuple(_rungs(findings)),
    )


def _is_asked(config: StudyConfig, finding: Finding) -> bool:
    """Whether this search has the part that a finding is of."""
    rung = _RUNG_OF.get(finding.check)
    if rung is None:
        return True
    return config.search.algorithm == "s3" and rung in config.search.ladder


def _rungs(findings: Sequence[Finding]) -> list[Finding]:
    return [each for each in findings if each.check in _RUNG_OF or each.check in _OUTSIDE]
