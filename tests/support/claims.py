"""What a study claims of its winner beside what the winner and stock schedulers do when they are
measured from outside, for the models of `tests.support.small_nets` and the embedded digits.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s3search.formats.exporters.runtime.run_plan import run_plan
from s3search.formats.exporters.schedule_json import save_export
from s3search.models import digits
from s3search.run.launching import launch
from s3search.study.database.store import open_study
from s3search.study.file.config import StudyConfig, parse_config
from s3search.study.results.comparison import comparison_of
from tests.support import small_nets
from tests.support.outside import (
    Against,
    Estimated,
    Features,
    against_best,
    in_portions,
    run_stock,
    stock,
    stock_on_edm,
    stock_on_flows,
)

NFE = 5
OUTSIDE_SEED = 20_001  # of the noise outside; no study's

_VP = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
_HERE = "tests.support.small_nets"
_SMALL_NETS = {
    "metric": {"features": f"{_HERE}:features"},
    "reference": {"images": f"{_HERE}:images"},
}
_DIGITS = {"metric": {"features": "digits"}, "reference": {"images": "digits"}}


@dataclass(frozen=True, kw_only=True)
class Brought:
    """A model that somebody searches, and how it is run without s3search."""

    tables: dict[str, Any]  # of its study file
    schedulers: Callable[[], dict[str, Any]]
    network: Callable[[Tensor, Tensor], Tensor]  # what stock schedulers call
    replay: Callable[[Path, Tensor], Tensor]  # an exported schedule, on noise
    features: Callable[[Tensor], Tensor]
    real: Tensor


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a study says of found against published."""

    verdict: str
    ratio: Estimated | None
    less_real: Estimated | None  # the ratio of what both have more than real images
    schedule: Path  # what was found, exported


def brought(name: str, folder: Path) -> Brought:
    """The model called ``name``; ``folder`` is for what has to be saved."""
    return MODELS[name](folder)


def study(
    model: Brought, folder: Path, *, evaluations: int, n_images: int, n_validated: int
) -> StudyConfig:
    """A search as a new user asks for it, in this process."""
    return parse_config(
        {
            "study": {"name": "claims"},
            "space": {"nfe": [NFE]},
            "search": {"evaluations": evaluations, "n_images": n_images},
            "validation": {"n_images": n_validated},
            "storage": {"url": f"sqlite:///{folder}/study.db"},
            "cluster": {"address": "inline", "workers": 1},
            **model.tables,
        }
    )


def claim_of(config: StudyConfig, folder: Path) -> Claim:
    """Runs the study and exports what was found, whether it is the winner or not."""
    launch(config, lambda _: None)
    with open_study(config.storage.url, config.study.name) as store:
        said = comparison_of(store)["against_published"][0]
        save_export(store.schedule(said["found"]), folder / "schedule.json")
    return Claim(
        verdict=said["verdict"],
        ratio=_estimated(said),
        less_real=_estimated(said.get("less_real_images")),
        schedule=folder / "schedule.json",
    )


def _estimated(said: Mapping[str, Any] | None) -> Estimated | None:
    if said is None or said["ratio"] is None or said["ratio_95"] is None:
        return None
    return Estimated(value=said["ratio"], interval=tuple(said["ratio_95"]))


class Outside:
    """What stock schedulers make of ``n_images`` noises with a model: measured once, compared with
    what any study of it finds.
    """

    def __init__(self, model: Brought, n_images: int) -> None:
        draw = torch.Generator().manual_seed(OUTSIDE_SEED)
        self.noise = torch.randn((n_images, *model.real.shape[1:]), generator=draw)
        self._model = model
        made = {
            name: run_stock(own, NFE, model.network, self.noise)
            for name, own in model.schedulers().items()
        }
        self._stock = {name: self._seen(own) for name, own in made.items() if own is not None}
        self._real = self._seen(model.real)

    def against(self, schedule: Path) -> Against:
        """The exported ``schedule`` against the best of the stock schedulers."""
        found = self._seen(self._model.replay(schedule, self.noise))
        return against_best(found, self._stock, self._real)

    @torch.inference_mode()
    def _seen(self, images: Tensor) -> Features:
        found: Features = self._model.features(images).double().numpy()
        return found


# --- the models ---


def _epsilon_on_vp(_: Path) -> Brought:
    network = in_portions(_answer(small_nets.network("epsilon")))
    return Brought(
        tables={"model": {"loader": f"{_HERE}:epsilon_on_vp"}, **_SMALL_NETS},
        schedulers=partial(stock, _VP),
        network=network,
        replay=partial(_run_plan, small_nets.epsilon_on_vp()),
        features=small_nets.features(),
        real=small_nets.images(),
    )


def _pipeline(folder: Path) -> Brought:
    from diffusers import DDPMPipeline  # noqa: PLC0415  # seconds

    path = small_nets.save_pipeline(folder / "pipeline")
    pipe = DDPMPipeline.from_pretrained(path)
    pipe.set_progress_bar_config(disable=True)
    return Brought(
        tables={"model": {"loader": "diffusers", "path": str(path)}, **_SMALL_NETS},
        schedulers=partial(stock, dict(pipe.scheduler.config)),
        network=in_portions(_answer(pipe.unet)),
        replay=partial(_run_pipeline, path),
        features=small_nets.features(),
        real=small_nets.images(),
    )


def _rectified_flow(_: Path) -> Brought:
    return Brought(
        tables={"model": {"loader": f"{_HERE}:rectified_flow"}, **_SMALL_NETS},
        schedulers=stock_on_flows,
        network=in_portions(_answer(small_nets.network("velocity"))),
        replay=partial(_run_plan, small_nets.rectified_flow()),
        features=small_nets.features(),
        real=small_nets.images(),
    )


def _embedded_digits(_: Path) -> Brought:
    denoiser = digits.load(labels="none")
    process, own = denoiser.process, digits.SIGMA_DATA

    def network(x: Tensor, c_noise: Tensor) -> Tensor:
        """F of EDM's preconditioning, from D: arXiv:2206.00364, eq. 7."""
        sigma = (4 * c_noise.double()).exp()
        norm = (sigma**2 + own**2).sqrt()
        state = x * norm  # the scheduler has scaled it
        d = denoiser(state.float(), sigma.float().expand(len(x)))
        return ((d - (own / norm) ** 2 * state) * norm / (sigma * own)).float()

    config = {"sigma_min": process.sigma_min, "sigma_max": process.sigma_max, "sigma_data": own}
    return Brought(
        tables={"model": {"loader": "digits", "labels": "none"}, **_DIGITS},
        schedulers=partial(stock_on_edm, config),
        network=network,
        replay=partial(_run_plan, denoiser),
        features=digits.features(),
        real=digits.images(),
    )


def _digits_as_a_flow(_: Path) -> Brought:
    denoiser = small_nets.digits_flow()

    def network(x: Tensor, timestep: Tensor) -> Tensor:
        """The velocity eps - x0 from D."""
        t = timestep.float() / small_nets.N_INDICES
        return (x - denoiser(x, t.expand(len(x)))) / t

    return Brought(
        tables={"model": {"loader": f"{_HERE}:digits_flow"}, **_DIGITS},
        schedulers=stock_on_flows,
        network=network,
        replay=partial(_run_plan, denoiser),
        features=digits.features(),
        real=digits.images(),
    )


MODELS: dict[str, Callable[[Path], Brought]] = {
    "epsilon on linear VP": _epsilon_on_vp,
    "DDPMPipeline": _pipeline,
    "rectified flow": _rectified_flow,
    "embedded digits": _embedded_digits,
    "digits as a flow": _digits_as_a_flow,
}


def _answer(net: Any) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, t: net(x, t, return_dict=False)[0]


@torch.inference_mode()
def _run_plan(denoiser: Any, schedule: Path, noise: Tensor) -> Tensor:
    """What another runtime makes of the exported table, by the file for that."""
    plan = json.loads(schedule.read_text())["plan"]
    called = in_portions(denoiser)
    image = None if plan["image"] is None else noise.new_tensor(plan["image"])
    found: Tensor = run_plan(plan, lambda x, t: called(x, x.new_tensor(t)), noise, image)
    return found


def _run_pipeline(path: Path, schedule: Path, noise: Tensor) -> Tensor:
    """What the pipeline makes with the exported schedule for its scheduler."""
    from diffusers import DDPMPipeline  # noqa: PLC0415

    from s3search.integrations.diffusers import S3Scheduler  # noqa: PLC0415  # loads diffusers

    pipe = DDPMPipeline.from_pretrained(path)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = S3Scheduler.from_schedule(schedule, pipe.scheduler.config)
    drawn = torch.Generator().manual_seed(OUTSIDE_SEED)  # which gives this noise
    made = pipe(
        batch_size=len(noise),
        generator=drawn,
        num_inference_steps=pipe.scheduler.num_steps,
        output_type="pt",
    )
    return 2 * torch.as_tensor(made.images).cpu() - 1
