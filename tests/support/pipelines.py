# ruff: noqa: PLC0415  # diffusers is imported where it is used, as the docstring says
"""Pipelines of every kind with tiny random weights, as `save_pretrained` writes them; and what a
study of one needs beside it.

Workers import this for the extractor and the reference, so diffusers is imported where it is used.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s3search.evaluation.evaluator import Evaluator
from s3search.evaluation.noise import BLOCK, NoiseBank, block_generator
from s3search.formats.exporters.schedule_json import save_export
from s3search.run.launching import launch
from s3search.schedules.schedule import Schedule
from s3search.solvers.plan import compile_plan
from s3search.solvers.sample import sample
from s3search.study.database.store import open_study
from s3search.study.file.config import StudyConfig, parse_config
from s3search.study.results.export import best_schedule


def pooled() -> Callable[[Tensor], Tensor]:
    """Means of the four quarters of each channel as features."""

    def features(images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)

    return features


def contrast() -> Callable[[Tensor], Tensor]:
    """A score of pictures and films: how far their pixels are from their mean."""

    def score(images: Tensor) -> Tensor:
        return images.float().flatten(1).std(dim=1)

    return score


def references(n: int = 64, channels: int = 3, size: int = 8) -> Tensor:
    """Some images in [-1, 1]."""
    generator = torch.Generator().manual_seed(3)
    return torch.rand((n, channels, size, size), generator=generator) * 2 - 1


def study(folder: Path, model: dict[str, Any], **tables: Any) -> StudyConfig:
    """A search of a few evaluations of the pipeline in ``model``, in this process; keys that are
    None, and tables of nothing else, are left out.
    """
    data: dict[str, Any] = {
        "study": {"name": "t"},
        "model": {"loader": "diffusers", **model},
        "space": {"nfe": [3]},  # for the pipeline itself: some replay no analytic starts
        "metric": {"features": "tests.support.pipelines:pooled"},
        "reference": {"images": "tests.support.pipelines:references"},
        "search": {
            "algorithm": "evolution",
            "baselines": False,
            "evaluations": 4,
            "n_images": 12,
            "batch": 4,
        },
        "validation": {"n_images": 14, "finalists": 1},
        "storage": {"url": f"sqlite:///{folder}/study.db"},
        "cluster": {"address": "inline", "workers": 1},
    }
    for name, table in tables.items():
        data[name] = {k: v for k, v in {**data[name], **table}.items() if v is not None}
    data = {name: table for name, table in data.items() if table}
    return parse_config(data)


def unet(**options: Any) -> Any:
    """A U-Net without condition."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    return UNet2DModel(
        **{
            "sample_size": 8,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "down_block_types": ("DownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "UpBlock2D"),
            **options,
        }
    ).eval()


def ddpm(folder: Path, **scheduler: Any) -> Path:
    """DDPMPipeline: 3 x 8 x 8 images."""
    from diffusers import DDPMPipeline, DDPMScheduler

    DDPMPipeline(unet=unet(), scheduler=DDPMScheduler(**scheduler)).save_pretrained(folder)
    return folder


def stock_pndm(folder: Path) -> Path:
    """PNDMPipeline, which diffusers keeps for old checkpoints."""
    from diffusers import PNDMPipeline, PNDMScheduler

    PNDMPipeline(unet=unet(), scheduler=PNDMScheduler()).save_pretrained(folder)
    return folder


def stock_ddim(folder: Path) -> Path:
    """DDIMPipeline, whose own scheduler is deterministic."""
    from diffusers import DDIMPipeline, DDIMScheduler

    DDIMPipeline(unet=unet(), scheduler=DDIMScheduler()).save_pretrained(folder)
    return folder


def score(folder: Path) -> Path:
    """ScoreSdeVePipeline: 3 x 8 x 8 images in [0, 1]."""
    from diffusers import ScoreSdeVePipeline, ScoreSdeVeScheduler

    scheduler = ScoreSdeVeScheduler(sigma_max=50.0)
    network = unet(time_embedding_type="fourier")
    ScoreSdeVePipeline(unet=network, scheduler=scheduler).save_pretrained(folder)
    return folder


def ldm(folder: Path) -> Path:
    """LDMPipeline: latents of a VQ-VAE."""
    from diffusers import DDIMScheduler, LDMPipeline, VQModel

    torch.manual_seed(0)
    vqvae = VQModel(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=3,
        num_vq_embeddings=16,
    )
    LDMPipeline(vqvae=vqvae, unet=unet(), scheduler=DDIMScheduler()).save_pretrained(folder)
    return folder


def vae(**options: Any) -> Any:
    """From latents of 4 x h x w to images of 3 x 2h x 2w."""
    from diffusers import AutoencoderKL

    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        **options,
    ).eval()


def dit(folder: Path) -> Path:
    """DiTPipeline: 10 classes, and a variance that is learned."""
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        norm_num_groups=1,
        sample_size=8,
        num_embeds_ada_norm=1000,
    )
    pipe = DiTPipeline(transformer=stirred(transformer), vae=vae(), scheduler=DDIMScheduler())
    pipe.save_pretrained(folder)
    return folder


def stable_diffusion(folder: Path, **options: Any) -> Path:
    """StableDiffusionPipeline."""
    from diffusers import StableDiffusionPipeline

    StableDiffusionPipeline(
        unet=conditional_unet(**options),
        vae=vae(),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(folder),
        scheduler=sd_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def stable_diffusion_xl(folder: Path) -> Path:
    """StableDiffusionXLPipeline."""
    from diffusers import StableDiffusionXLPipeline

    network = conditional_unet(
        cross_attention_dim=16,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 8,
    )
    StableDiffusionXLPipeline(
        unet=network,
        vae=vae(),
        text_encoder=clip_text(),
        text_encoder_2=clip_text(projects=True),
        tokenizer=clip_tokenizer(folder),
        tokenizer_2=clip_tokenizer(folder),
        scheduler=sd_scheduler(),
    ).save_pretrained(folder)
    return folder


def stable_diffusion_3(folder: Path) -> Path:
    """StableDiffusion3Pipeline, with its shift."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        SD3Transformer2DModel,
        StableDiffusion3Pipeline,
    )

    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=8,
        pooled_projection_dim=16,
        pos_embed_max_size=8,
    )
    StableDiffusion3Pipeline(
        transformer=stirred(transformer),
        vae=vae(shift_factor=0.1, scaling_factor=1.5),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=clip_text(projects=True),
        tokenizer=clip_tokenizer(folder),
        text_encoder_2=clip_text(projects=True),
        tokenizer_2=clip_tokenizer(folder),
        text_encoder_3=t5(16),
        tokenizer_3=t5_tokenizer(),
    ).save_pretrained(folder)
    return folder


def flux(folder: Path, *, guided: bool = True) -> Path:
    """FluxPipeline: dev, or schnell where it is not guided."""
    from diffusers import (
        FlowMatchEulerDiscreteScheduler,
        FluxPipeline,
        FluxTransformer2DModel,
    )

    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=8,
        guidance_embeds=guided,
        axes_dims_rope=(2, 2, 4),
    )
    FluxPipeline(
        transformer=stirred(transformer),
        vae=vae(shift_factor=0.1, scaling_factor=0.4),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(folder),
        text_encoder_2=t5(16),
        tokenizer_2=t5_tokenizer(),
    ).save_pretrained(folder)
    return folder


def pixart(folder: Path) -> Path:
    """PixArtSigmaPipeline."""
    from diffusers import (
        DPMSolverMultistepScheduler,
        PixArtSigmaPipeline,
        PixArtTransformer2DModel,
    )

    torch.manual_seed(0)
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        norm_num_groups=1,
        cross_attention_dim=8,
        caption_channels=16,
        sample_size=8,
        use_additional_conditions=False,
    )
    PixArtSigmaPipeline(
        transformer=stirred(transformer),
        vae=vae(),
        scheduler=DPMSolverMultistepScheduler(),
        text_encoder=t5(16),
        tokenizer=t5_tokenizer(),
    ).save_pretrained(folder)
    return folder


def stirred(transformer: Any) -> Any:
    """With weights that let conditions through: theirs begin at zero."""
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return transformer.eval()


def sd_scheduler() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        steps_offset=1,
    )


def conditional_unet(**options: Any) -> Any:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (8, 16),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "cross_attention_dim": 8,
            "attention_head_dim": 4,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            **options,
        }
    ).eval()


_LETTERS = "abcdefgh"
_CLIP_WORDS = [*_LETTERS, *(f"{c}</w>" for c in _LETTERS), "<|startoftext|>", "<|endoftext|>"]


def clip_tokenizer(folder: Path) -> Any:
    """Knows the letters a to h."""
    from transformers import CLIPTokenizer

    place = folder.with_name(f"{folder.name}-tokenizer")
    place.mkdir(exist_ok=True)
    words = {word: i for i, word in enumerate(_CLIP_WORDS)}
    (place / "vocab.json").write_text(json.dumps(words))
    (place / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(place / "vocab.json"), str(place / "merges.txt"), model_max_length=8)


def clip_text(*, projects: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(2)
    config = CLIPTextConfig(
        vocab_size=len(_CLIP_WORDS),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8,
        projection_dim=8,
        bos_token_id=len(_CLIP_WORDS) - 2,
        eos_token_id=len(_CLIP_WORDS) - 1,
        pad_token_id=len(_CLIP_WORDS) - 1,
    )
    return (CLIPTextModelWithProjection if projects else CLIPTextModel)(config).eval()


def t5_tokenizer() -> Any:
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    letters = [(f"{start}{c}", -3.0) for c in _LETTERS for start in ("", "\u2581")]
    return T5Tokenizer(vocab=[*pieces, *letters], extra_ids=0, model_max_length=16)


def t5(width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(3)
    config = T5Config(vocab_size=20, d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return T5EncoderModel(config).eval()


def searched(config: StudyConfig, output: Path) -> Evaluator:
    """Runs the study, exports its best schedule to ``output`` and returns an evaluator of it."""
    launch(config, lambda _: None)
    with open_study(config.storage.url, config.study.name) as store:
        schedule, _ = best_schedule(store)
    save_export(schedule, output)
    return Evaluator(config.evaluator_spec)


def replayed(folder: Path, schedule: Path) -> Any:
    """The pipeline of ``folder`` with the exported schedule for its scheduler, whose ``last`` will
    be the state it ends with: pipelines clamp what they return.
    """
    from diffusers import DiffusionPipeline

    from s3search.integrations.diffusers import S3Scheduler

    class Recording(S3Scheduler):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            output = super().step(*args, **kwargs)
            self.last = output[0]
            return output

    pipe = DiffusionPipeline.from_pretrained(folder)
    pipe.scheduler = Recording.from_schedule(schedule, pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def both_ways(evaluator: Evaluator, folder: Path, exported: Path) -> tuple[Tensor, Tensor]:
    """Five last states from one noise: of our loop, and of the stock pipeline that replays."""
    schedule = Schedule.load(exported)
    noise, _ = next(NoiseBank(evaluator.denoiser, torch.device("cpu")).batches(1, 5, 5))
    with torch.no_grad():
        ours = sample(evaluator.denoiser, compile_plan(schedule), noise)
    pipe = replayed(folder, exported)
    pipe(
        batch_size=BLOCK,
        generator=block_generator(1, 0),
        num_inference_steps=pipe.scheduler.num_steps,
        output_type="np",
    )
    return ours, pipe.scheduler.last[:5]


def is_close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> bool:
    """Whether all numbers agree to a part of the largest, which is not small."""
    scale = float(expected.abs().max())
    assert scale > 0.1, "the images to compare are flat"
    return (
        found.shape == expected.shape and float((found - expected).abs().max()) < tolerance * scale
    )


def in_unit_range(images: Tensor) -> Tensor:
    """Images in [-1, 1] as pipelines return them."""
    return (images / 2 + 0.5).clamp(0, 1)
