# ruff: noqa: PLC0415  # diffusers is imported where it is used: workers import this
"""Pipelines of many families with tiny random weights, each made anew and equal."""

import tempfile
from pathlib import Path
from typing import Any

import torch

from tests.support import pipelines

WIDTH = 16  # of text encoders


def _text_parts() -> dict[str, Any]:
    """CLIP's text encoder and tokenizer, as Stable Diffusion has them."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = pipelines.clip_tokenizer(Path(folder) / "pipe")
    return {"text_encoder": pipelines.clip_text(), "tokenizer": tokenizer}


def _t5_parts() -> dict[str, Any]:
    return {"text_encoder": pipelines.t5(WIDTH), "tokenizer": pipelines.t5_tokenizer()}


def _flow(**config: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**config)


def _latent_parts(**network: Any) -> dict[str, Any]:
    """What pipelines of Stable Diffusion's kind have."""
    return {
        "vae": pipelines.vae(),
        "unet": pipelines.conditional_unet(**network),
        "scheduler": pipelines.sd_scheduler(),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
        **_text_parts(),
    }


def image_to_image() -> Any:
    """Stable Diffusion that begins with a noised image."""
    from diffusers import StableDiffusionImg2ImgPipeline

    return StableDiffusionImg2ImgPipeline(**_latent_parts())


def flux_image_to_image() -> Any:
    """Flux that begins with a noised image, whose latents it packs into tokens."""
    from diffusers import FluxImg2ImgPipeline, FluxPipeline

    with tempfile.TemporaryDirectory() as folder:
        made = FluxPipeline.from_pretrained(pipelines.flux(Path(folder) / "pipe", guided=False))
    return FluxImg2ImgPipeline(**made.components)


def inpainting() -> Any:
    """Stable Diffusion whose network sees mask and masked image."""
    from diffusers import StableDiffusionInpaintPipeline

    return StableDiffusionInpaintPipeline(**_latent_parts(in_channels=9, out_channels=4))


def blending() -> Any:
    """Inpainting by a network of text-to-image: the image is put back at each step."""
    from diffusers import StableDiffusionInpaintPipeline

    return StableDiffusionInpaintPipeline(**_latent_parts())


def controlnet() -> Any:
    """Stable Diffusion with a ControlNet."""
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    parts = _latent_parts()
    torch.manual_seed(5)
    control = ControlNetModel.from_unet(parts["unet"], conditioning_embedding_out_channels=(4, 8))
    for parameter in control.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return StableDiffusionControlNetPipeline(controlnet=control.eval(), **parts)


def animatediff() -> Any:
    """Videos by Stable Diffusion's network with motion modules."""
    from diffusers import AnimateDiffPipeline, MotionAdapter

    torch.manual_seed(6)
    motion = MotionAdapter(
        block_out_channels=(8, 16),
        motion_layers_per_block=1,
        motion_norm_num_groups=4,
        motion_num_attention_heads=2,
    )
    parts = _latent_parts()
    names = ("vae", "unet", "scheduler", "text_encoder", "tokenizer")
    return AnimateDiffPipeline(motion_adapter=motion, **{name: parts[name] for name in names})


def wan() -> Any:
    """Wan 2.1: a flow of videos."""
    from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel

    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    ).eval()
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=WIDTH,
        freq_dim=16,
        ffn_dim=16,
        num_layers=1,
        rope_max_seq_len=32,
    )
    return WanPipeline(
        transformer=pipelines.stirred(transformer),
        vae=vae,
        scheduler=_flow(shift=3.0),
        **_t5_parts(),
    )


def ltx() -> Any:
    """LTX: a flow of packed tokens of videos."""
    from diffusers import AutoencoderKLLTXVideo, LTXPipeline, LTXVideoTransformer3DModel

    torch.manual_seed(0)
    vae = AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        patch_size=1,
        patch_size_t=1,
    ).eval()
    transformer = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=1,
        caption_channels=WIDTH,
    )
    return LTXPipeline(
        transformer=pipelines.stirred(transformer),
        vae=vae,
        scheduler=_flow(use_dynamic_shifting=True),
        **_t5_parts(),
    )


def cogvideox() -> Any:
    """CogVideoX: a discrete process of videos, v-prediction."""
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXDDIMScheduler,
        CogVideoXPipeline,
        CogVideoXTransformer3DModel,
    )

    torch.manual_seed(0)
    vae = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    ).eval()
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=2,
        text_embed_dim=WIDTH,
        num_layers=1,
        sample_width=2,
        sample_height=2,
        sample_frames=9,
        patch_size=2,
        temporal_compression_ratio=4,
        max_text_seq_length=16,
    )
    return CogVideoXPipeline(
        transformer=pipelines.stirred(transformer),
        vae=vae,
        scheduler=CogVideoXDDIMScheduler(prediction_type="v_prediction", snr_shift_scale=3.0),
        **_t5_parts(),
    )


def stable_audio() -> Any:
    """Stable Audio: sound, with EDM's preconditioning."""
    from diffusers import (
        AutoencoderOobleck,
        EDMDPMSolverMultistepScheduler,
        StableAudioDiTModel,
        StableAudioPipeline,
    )
    from diffusers.pipelines.stable_audio.modeling_stable_audio import StableAudioProjectionModel

    torch.manual_seed(0)
    transformer = StableAudioDiTModel(
        sample_size=4,
        in_channels=3,
        out_channels=3,
        num_layers=1,
        attention_head_dim=4,
        num_attention_heads=2,
        num_key_value_attention_heads=2,
        cross_attention_dim=4,
        time_proj_dim=8,
        global_states_input_dim=8,
        cross_attention_input_dim=4,
    )
    vae = AutoencoderOobleck(
        encoder_hidden_size=6,
        downsampling_ratios=[1, 2],
        decoder_channels=3,
        decoder_input_channels=3,
        audio_channels=2,
        channel_multiples=[2, 4],
        sampling_rate=4,
    ).eval()
    projection = StableAudioProjectionModel(
        text_encoder_dim=WIDTH, conditioning_dim=4, min_value=0, max_value=32
    ).eval()
    return StableAudioPipeline(
        transformer=pipelines.stirred(transformer),
        vae=vae,
        projection_model=projection,
        scheduler=EDMDPMSolverMultistepScheduler(
            sigma_min=0.3, sigma_max=500.0, sigma_data=1.0, prediction_type="v_prediction"
        ),
        **_t5_parts(),
    )


def loudness() -> Any:
    """A score of samples of any rank: their mean square."""

    def score(samples: torch.Tensor) -> torch.Tensor:
        return samples.float().flatten(1).square().mean(1)

    return score
