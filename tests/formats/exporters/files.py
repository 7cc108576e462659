"""Exported Python files, executed as they stand, and the denoisers they are given."""

import runpy
from pathlib import Path
from typing import Any

from torch import Tensor

from s3search.formats.exporters import ExportRequest, LossReport, export_schedule
from s3search.models.gaussian import GaussianDenoiser
from s3search.processes import Flow, NoiseProcess
from s3search.schedules.schedule import Schedule
from tests.support.helpers import gaussian


class SigmaDenoiser:
    """The Gaussian denoiser of a process as k-diffusion's model(x / alpha, sigma / alpha), or
    as ComfyUI's model(x, t) of a flow; it counts its calls.
    """

    def __init__(self, process: NoiseProcess) -> None:
        self.process = process
        self.denoiser: GaussianDenoiser = gaussian(process)
        self.sigmas: list[float] = []
        self.extra: list[dict[str, Any]] = []

    def __call__(self, x: Tensor, sigma: Tensor, **extra: Any) -> Tensor:
        assert sigma.shape == (len(x),)
        self.sigmas.append(float(sigma[0]))
        self.extra.append(extra)
        if isinstance(self.process, Flow):
            return self.denoiser(x, sigma)
        t = sigma.new_tensor([self.process.time_of_lam(-float(s.log())) for s in sigma])
        return self.denoiser(x * self.process.alpha(float(t[0])), t)


def exported(
    form: str, schedule: Schedule, folder: Path, **options: Any
) -> tuple[dict[str, Any], LossReport]:
    """The names that the exported Python file defines, and its report."""
    path = folder / "exported.py"
    made = export_schedule(form, ExportRequest(schedule=schedule, output=path, **options))
    assert made.files == (path,)
    for line in made.report.lines():
        assert line[:60] in path.read_text().replace("\n# ", " ")
    return runpy.run_path(str(path)), made.report
