"""What `s3search check` does with a study: reads it, loads what it names, asks the model."""

import torch

from s3search.cluster import check_address
from s3search.cluster.asking import described, findings_by
from s3search.evaluation.record import Finding, Status
from s3search.evaluation.spec import load_ems, load_gaussian
from s3search.run.guard_check import guard_findings
from s3search.run.launching import space_of, workers
from s3search.run.prepare import prepare
from s3search.run.targets import aimed, check_target
from s3search.study.file.config import StudyConfig
from s3search.study.file.presets import unfilled


def check_study(config: StudyConfig, *, loads: bool = True) -> list[Finding]:
    """What is found of a study; raises `InvalidConfig` where its file is wrong, or what it names
    cannot be loaded.

    ``loads``: also of the model, the extractor and the reference, in this process unless the
    study's address is another; without a GPU here they run on the CPU.
    """
    space = space_of(config)
    check_target(config, space)
    check_address(config.cluster.address)
    blanks = [f"{key}{what and f' ({what})'}" for key, what in unfilled(config).items()]
    if blanks:
        status = Status.ERROR if loads else Status.WARNING
        message = f"fill in {', '.join(blanks)}: it is as in the preset, and no such file is here"
        return [Finding(check="filled in", status=status, message=message)]
    if not loads:
        if config.statistics.ems is not None:
            load_ems(config.statistics.ems)
        if config.statistics.gaussian is not None:
            load_gaussian(config.statistics.gaussian)
        return []
    with workers(_here(config)) as pool:
        description = described(pool, layers=space.cost is not None)
        prepare(config, aimed(config, space, description), description)
        found = list(findings_by(pool))
        if not any(each.status is Status.ERROR for each in found):
            found += guard_findings(config, description.process, pool)
        return found


def _here(config: StudyConfig) -> StudyConfig:
    cluster = config.cluster
    if cluster.address != "inline" or torch.cuda.is_available():
        return config
    on_cpu = cluster.model_copy(update={"gpus_per_worker": 0.0})
    return config.model_copy(update={"cluster": on_cpu})
