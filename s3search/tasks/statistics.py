"""From a study file to a file of statistics: what `s3search tools statistics` does.

Clean images are drawn from the model itself, where every image has the condition it was made with,
or are the study's reference images, for models without condition.
"""

import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s3search.errors import InvalidConfig
from s3search.evaluation.code_version import CODE_VERSION
from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.noise import NoiseBank
from s3search.evaluation.plugins import REFERENCES, call_plugin
from s3search.metrics.references import ImageSource
from s3search.models.statistics import (
    EmsStatistics,
    GaussianStatistics,
    NodeGrid,
    estimate_ems,
    gaussian_statistics,
)
from s3search.processes import NoiseProcess, usual_end_time
from s3search.schedules import published
from s3search.schedules.spacing import End, EndRule, noisy_time
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from s3search.study.file.config import StudyConfig

_NFE = 30  # of the model's own images; UniPC-3 has converged to the eye at half of it
_LARGEST_RATIO = 1e3  # sigma / alpha of the first node where a process starts from pure noise
_BATCH = 256

Report = Callable[[int, int], None]
Batch = tuple[Tensor, Mapping[str, Any]]


class CleanSource(StrEnum):
    """Where clean images come from."""

    MODEL = "model"
    REFERENCE = "reference"


def measure_ems(  # the options of the command
    config: StudyConfig,
    output: Path,
    *,
    n_intervals: int,
    n_images: int,
    n_probes: int | None,
    source: CleanSource,
    seed: int,
    report: Report,
) -> EmsStatistics:
    """Measures EMS for the study's model and writes them; an interrupted run is resumed.

    Finished nodes lie in a hidden folder beside ``output`` until the file is written.
    """
    evaluator = Evaluator(config.evaluator_spec)
    low, high = _lam_range(evaluator.denoiser.process)
    grid = NodeGrid(lam_start=low, lam_end=high, n_intervals=n_intervals)
    batches = list(_clean(config, evaluator, source, n_images, seed))
    folder = output.with_name(f".{output.name}.nodes")
    found = estimate_ems(
        evaluator.denoiser,
        lambda: ((images.to(evaluator.device), condition) for images, condition in batches),
        grid,
        seed=seed,
        n_probes=n_probes,
        folder=folder,
        provenance=_provenance(evaluator, source, sum(len(images) for images, _ in batches)),
        report=report,
    )
    found.save(output)
    shutil.rmtree(folder)
    return found


def measure_gaussian(  # the options of the command
    config: StudyConfig,
    output: Path,
    *,
    n_images: int,
    n_modes: int,
    source: CleanSource,
    seed: int,
    report: Report,
) -> GaussianStatistics:
    """Measures mean and leading eigenpairs of the clean images and writes them."""
    evaluator = Evaluator(config.evaluator_spec)

    def reported() -> Iterator[Tensor]:
        done = 0
        for images, _ in _clean(config, evaluator, source, n_images, seed):
            yield images
            done += len(images)
            report(done, n_images)

    found = gaussian_statistics(reported(), n_modes, {"seed": seed})
    where_from = {**found.provenance, **_provenance(evaluator, source, found.n)}
    found = replace(found, provenance=where_from)
    found.save(output)
    return found


def _clean(
    config: StudyConfig, evaluator: Evaluator, source: CleanSource, n_images: int, seed: int
) -> Iterator[Batch]:
    if source is CleanSource.REFERENCE:
        yield from _reference(config, evaluator, n_images)
    else:
        yield from _sampled(config, evaluator, n_images, seed)


def _sampled(
    config: StudyConfig, evaluator: Evaluator, n_images: int, seed: int
) -> Iterator[Batch]:
    """The model's own images with their conditions."""
    denoiser = evaluator.denoiser
    end = End(rule=EndRule.DENOISE)
    plan = compile_plan(published.unipc(denoiser.process, nfe=_NFE, order=3, end=end))
    bank = NoiseBank(denoiser, evaluator.device)
    for noise, condition in bank.batches(seed, n_images, config.cluster.batch_size or _BATCH):
        with torch.no_grad():
            yield sample(denoiser, plan, noise, **condition).cpu(), condition


def _reference(config: StudyConfig, evaluator: Evaluator, n_images: int) -> Iterator[Batch]:
    """The first reference images."""
    table, shape = config.reference, tuple(evaluator.denoiser.sample_shape)
    if table is None:
        raise InvalidConfig("--source reference: the study has no [reference]; use --source model")
    found = call_plugin("reference.images", table.images, table.options, REFERENCES)
    if isinstance(found, ImageSource):
        found = found.images(range(min(n_images, found.n)))
    if not isinstance(found, Tensor) or tuple(found.shape[1:]) != shape:
        what = tuple(found.shape[1:]) if isinstance(found, Tensor) else "a file of statistics"
        raise InvalidConfig(
            f"--source reference needs images of the model's shape {shape}, the study's reference "
            f"is {what}; use --source model"
        )
    if hasattr(evaluator.denoiser, "condition") and evaluator.denoiser.condition(
        1, torch.Generator()
    ):
        raise InvalidConfig(
            "--source reference: the model takes conditions and reference images have none; "
            "use --source model"
        )
    if len(found) < n_images:
        raise InvalidConfig(
            f"--n-images: {n_images} asked, the reference has {len(found)}; ask for fewer or use "
            "--source model"
        )
    for images in torch.split(found[:n_images], config.cluster.batch_size or _BATCH):
        yield images, {}


def _lam_range(process: NoiseProcess) -> tuple[float, float]:
    """From the noisy end to the usual end of the published samplers."""
    low = max(process.lam(noisy_time(process)), -math.log(_LARGEST_RATIO))
    return low, process.lam(usual_end_time(process))


def _provenance(evaluator: Evaluator, source: CleanSource, n_images: int) -> dict[str, Any]:
    return {
        "model_fingerprint": evaluator.model_fingerprint,
        "process": evaluator.denoiser.process.model_dump(mode="json"),
        "source": source.value,
        "n_images": n_images,
        "reference_digest": evaluator.metric.statistic.digest,
        "code_version": CODE_VERSION,
    }
