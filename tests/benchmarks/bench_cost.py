"""GPU minutes of a study, by multiply-adds: a table for networks of three sizes.

python -m tests.benchmarks.bench_cost [--tflops CIFAR SD FLUX]

The networks are made without weights or memory (torch's "meta" device) and called once, while
torch counts.  Calls are what `s3search.run.forecast` says of the study presets, and of a first
look of 60 evaluations of 250 images.  The rates are assumed, 10^12 operations a second that a GPU
sustains: ``s3search launch --dry-run`` measures them on yours.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from s3search.models.edm.unets import SongConfig, SongUNet
from s3search.processes import NoiseProcess, edm, flow, vp_linear
from s3search.run.baselines import known_baselines
from s3search.run.forecast import to_validate
from s3search.run.prepare import baseline_seeds
from s3search.study.file.config import StudyConfig, config_from_text
from s3search.study.file.presets import study_preset

ASSUMED = (20.0, 60.0, 150.0)
FIRST_LOOK = ("search.evaluations=60", "search.n_images=250", "space.nfe=[8]")
_EXTRACTOR = 5.7e9  # multiply-adds of Inception for one image, its authors' number


@dataclass(frozen=True, kw_only=True)
class Size:
    """A network, and what its study presets say."""

    name: str
    preset: str
    process: NoiseProcess
    call: float  # multiply-adds of one image
    decoder: float  # of one image
    batches: int = 1  # per call, with guidance


def multiply_adds(make: Callable[[], nn.Module], call: Callable[[Any], object]) -> float:
    """Of one call on one image."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        call(make())
    return counter.get_total_flops() / 2


def _empty(*shape: int) -> Tensor:
    return torch.empty(*shape)


def sizes() -> list[Size]:
    """EDM's CIFAR-10 network, that of Stable Diffusion 1.5 at 512 x 512, FLUX.1 at 512 x 512."""
    song = SongConfig(img_resolution=32, channel_mult=(2, 2, 2))
    decoder = multiply_adds(
        lambda: diffusers.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        ),
        lambda net: net.decode(_empty(1, 4, 64, 64)),
    )
    return [
        Size(
            name="CIFAR-10, 32 x 32 (EDM)",
            preset="cifar10-edm",
            process=edm(),
            call=multiply_adds(
                lambda: SongUNet(song), lambda net: net(_empty(1, 3, 32, 32), _empty(1), None)
            ),
            decoder=0.0,
        ),
        Size(
            name="Stable Diffusion 1.5, 512 x 512",
            preset="sd15",
            process=vp_linear(),
            call=multiply_adds(
                lambda: diffusers.UNet2DConditionModel(
                    sample_size=64, cross_attention_dim=768, attention_head_dim=8
                ),
                lambda net: net(_empty(1, 4, 64, 64), _empty(1), _empty(1, 77, 768)),
            ),
            decoder=decoder,
            batches=2,
        ),
        Size(
            name="FLUX.1, 512 x 512",
            preset="flux",
            process=flow(),
            call=multiply_adds(
                lambda: diffusers.FluxTransformer2DModel(guidance_embeds=True),
                lambda net: net(
                    hidden_states=_empty(1, 1024, 64),
                    encoder_hidden_states=_empty(1, 512, 4096),
                    pooled_projections=_empty(1, 768),
                    timestep=_empty(1),
                    img_ids=_empty(1024, 3),
                    txt_ids=_empty(512, 3),
                    guidance=_empty(1),
                ),
            ),
            decoder=decoder,
        ),
    ]


def images_and_calls(config: StudyConfig, process: NoiseProcess) -> list[tuple[float, float]]:
    """(images, network calls) of the search, and of the validation at most."""
    assert config.search.evaluations is not None
    images = float(config.search.evaluations * config.search.n_images)
    known = [known_baselines(None, process, nfe) for nfe in config.space.nfe]
    validated = to_validate(config, baseline_seeds(config, known))
    held_out = config.held_out_images
    return [
        (images, images * sum(config.space.nfe) / len(config.space.nfe)),
        (
            float(held_out * sum(validated.values())),
            float(held_out * sum(nfe * n for nfe, n in validated.items())),
        ),
    ]


def rows(rates: Sequence[float]) -> list[str]:
    """The table in Markdown."""
    found = [
        "| network | multiply-adds of a call | assumed TFLOP/s | study | calls to search "
        "| to validate, at most | GPU minutes to search | to validate |",
        "|-|-:|-:|-|-:|-:|-:|-:|",
    ]
    for size, rate in zip(sizes(), rates, strict=True):
        text = study_preset(size.preset).text
        looked_at = [line for line in text.splitlines() if not line.startswith("protocol")]
        first = "\n".join(looked_at).replace("[metric]", '[metric]\nfeatures = "inception"')
        for name, config in (
            ("first look", config_from_text(first, size.preset, FIRST_LOOK)),
            ("preset", config_from_text(text, size.preset)),
        ):
            parts = images_and_calls(config, size.process)
            calls = [f"{each / 1e6:.2g} M" for _, each in parts]
            minutes = [
                2.0
                * (made * size.batches * size.call + images * (size.decoder + _EXTRACTOR))
                / (rate * 1e12 * 60.0)
                for images, made in parts
            ]
            found.append(
                f"| {size.name} | {size.call / 1e9:,.0f} G | {rate:g} | {name} | {calls[0]} | "
                f"{calls[1]} | {minutes[0]:,.0f} | {minutes[1]:,.0f} |"
            )
    return found


def main(rates: Sequence[float] = ASSUMED) -> None:
    """Prints the table."""
    print("\n".join(rows(rates)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tflops", type=float, nargs=3, default=ASSUMED)
    main(parser.parse_args().tflops)
