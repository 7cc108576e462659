"""The noise levels that flow pipelines of diffusers hand to their schedulers by themselves.

They are not what a user asked for: a pipeline passes them in every run that names none.  The
scheduler shifts them as its config says.  A test reads the installed pipelines and compares.
"""

from collections.abc import Sequence
from enum import StrEnum

import numpy as np

_SAME = 1e-5  # pipelines count in float32
_TIMES = 1000  # training steps of every one of these models


class Passed(StrEnum):
    """What a pipeline hands over for n steps."""

    TO_ONE_STEP = "linspace(1, 1/n, n)"
    TO_ZERO = "linspace(1, 0, n + 1) without its end"
    WHOLE_TIMES = "whole timesteps from 1000 to 1, and those over 1000 as sigmas"


def sigmas_passed(passed: Passed, n: int) -> tuple[float, ...]:
    """The n levels that a pipeline passes, before the scheduler's shift."""
    match passed:
        case Passed.TO_ONE_STEP:
            levels = np.linspace(1.0, 1.0 / n, n)
        case Passed.TO_ZERO:
            levels = np.linspace(1.0, 0.0, n + 1)[:-1]
        case Passed.WHOLE_TIMES:
            levels = np.linspace(_TIMES, 1.0, n).astype(np.int64) / _TIMES
    return tuple(levels.tolist())


def is_passed(sigmas: Sequence[float]) -> bool:
    """Whether these levels are what some pipeline passes by itself."""
    n = len(sigmas)
    own = np.asarray(sigmas, dtype=np.float64)
    return n > 0 and any(
        bool(np.abs(own - sigmas_passed(each, n)).max() < _SAME) for each in Passed
    )


def passed_by(pipeline: str | None, *, has_flow_sigmas: bool) -> Passed | None:
    """What a pipeline of this class passes to its scheduler; None where the scheduler chooses.
    Some pass nothing to a scheduler whose config has ``use_flow_sigmas``.
    """
    if pipeline is None or (has_flow_sigmas and pipeline in NOT_TO_FLOW_SIGMAS):
        return None
    return next((each for each, names in PASSED_BY.items() if pipeline in names), None)


PASSED_BY = {
    Passed.TO_ONE_STEP: (
        "BriaFibo2Pipeline",
        "BriaFiboEditPipeline",
        "BriaFiboPipeline",
        "ChromaImg2ImgPipeline",
        "ChromaInpaintPipeline",
        "ChromaPipeline",
        "DreamLiteMobilePipeline",
        "DreamLitePipeline",
        "Flux2KleinInpaintPipeline",
        "Flux2KleinKVPipeline",
        "Flux2KleinPipeline",
        "Flux2Pipeline",
        "FluxControlImg2ImgPipeline",
        "FluxControlInpaintPipeline",
        "FluxControlNetImg2ImgPipeline",
        "FluxControlNetInpaintPipeline",
        "FluxControlNetPipeline",
        "FluxControlPipeline",
        "FluxFillPipeline",
        "FluxImg2ImgPipeline",
        "FluxInpaintPipeline",
        "FluxKontextInpaintPipeline",
        "FluxKontextPipeline",
        "FluxPipeline",
        "Krea2Pipeline",
        "LTX2ConditionPipeline",
        "LTX2HDRPipeline",
        "LTX2ImageToVideoPipeline",
        "LTX2InContextPipeline",
        "LTX2Pipeline",
        "LTXImageToVideoPipeline",
        "LTXPipeline",
        "LongCatAudioDiTPipeline",
        "LongCatImageEditPipeline",
        "LongCatImagePipeline",
        "Lumina2Pipeline",
        "MotifVideoImage2VideoPipeline",
        "MotifVideoPipeline",
        "NucleusMoEImagePipeline",
        "OvisImagePipeline",
        "QwenImageControlNetInpaintPipeline",
        "QwenImageControlNetPipeline",
        "QwenImageEditInpaintPipeline",
        "QwenImageEditPipeline",
        "QwenImageEditPlusPipeline",
        "QwenImageImg2ImgPipeline",
        "QwenImageInpaintPipeline",
        "QwenImagePipeline",
        "VisualClozeGenerationPipeline",
        "ZImageControlNetInpaintPipeline",
        "ZImageControlNetPipeline",
        "ZImageImg2ImgPipeline",
        "ZImageInpaintPipeline",
        "ZImageOmniPipeline",
        "ZImagePipeline",
    ),
    Passed.TO_ZERO: (
        "ErnieImagePipeline",
        "HunyuanImagePipeline",
        "HunyuanImageRefinerPipeline",
        "HunyuanSkyreelsImageToVideoPipeline",
        "HunyuanVideo15ImageToVideoPipeline",
        "HunyuanVideo15Pipeline",
        "HunyuanVideoFramepackPipeline",
        "HunyuanVideoImageToVideoPipeline",
        "HunyuanVideoPipeline",
        "OmniGenPipeline",
        "QwenImageLayeredPipeline",
    ),
    Passed.WHOLE_TIMES: ("CogView4ControlPipeline", "CogView4Pipeline", "GlmImagePipeline"),
}
"""The pipelines of diffusers 0.42 that pass levels, by class."""

NOT_TO_FLOW_SIGMAS = (
    "Flux2KleinInpaintPipeline",
    "Flux2KleinKVPipeline",
    "Flux2KleinPipeline",
    "Flux2Pipeline",
    "FluxPipeline",
    "OvisImagePipeline",
)
"""Those that leave the levels to a scheduler with ``use_flow_sigmas``."""

PASSES_ANOTHER = {
    "AceStepPipeline": "levels of its own shift, told by its caller",
    "BriaPipeline": "levels of Stable Diffusion 3's own table, or linspace(1, 1/n, n)",
    "Cosmos2TextToImagePipeline": "linspace(0, 1, n), which its scheduler takes as EDM's ramp",
    "Cosmos2VideoToWorldPipeline": "linspace(0, 1, n), which its scheduler takes as EDM's ramp",
    "Cosmos3OmniPipeline": "linspace(1 - 1/N, 0, n + 1) without its end",
    "HeliosPipeline": "linspace(0.999, 0, n + 1) without its end",
    "Ideogram4Pipeline": "quantiles of a logit-normal distribution",
    "LTXConditionPipeline": "timesteps of a linear and a quadratic part",
    "MochiPipeline": "levels of a linear and a quadratic part, for a time that rises",
    "QwenImage21Pipeline": "levels of its own config",
    "StableAudio3AudioToAudioPipeline": "levels uniform in log(alpha / sigma)",
    "StableAudio3InpaintPipeline": "levels uniform in log(alpha / sigma)",
    "StableAudio3Pipeline": "levels uniform in log(alpha / sigma)",
}
"""Pipelines that pass something else, which nothing here computes: their folders are refused."""
