"""The sanity check of a study before its search."""

from s3search.cluster.asking import Pool, findings_by
from s3search.errors import InvalidConfig
from s3search.evaluation.record import Status
from s3search.evaluation.sanity.checking import GRADIENT
from s3search.search.ladder import LadderRung
from s3search.study.database.store import stored_study
from s3search.study.file.config import StudyConfig


def checked(config: StudyConfig, pool: Pool) -> tuple[str, ...]:
    """Warnings about what the workers have loaded; raises `InvalidConfig` where every measurement
    would be wrong.  A study that has measured something is not checked again.
    """
    if not config.search.check:
        return ()
    with stored_study(config.storage.url, config.study.name) as store:
        if store is not None and store.measured_with() is not None:
            return ()
    findings = findings_by(pool)
    if config.search.algorithm != "s3" or LadderRung.POLISH not in config.search.ladder:
        findings = tuple(each for each in findings if each.check != GRADIENT)
    errors = [each.message for each in findings if each.status is Status.ERROR]
    if errors:
        raise InvalidConfig("; ".join(errors) + "; search.check = false searches it as it is")
    return tuple(each.message for each in findings if each.status is Status.WARNING)
