"""The flags of guided-diffusion, under their names and with their defaults."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from s3search.errors import InvalidConfig
from s3search.models.checkpoints import Depth, NetworkConfig
from s3search.models.guided_diffusion.unet import UNetShape
from s3search.processes import VpDiscrete, vp_discrete

N_CLASSES = 1000  # of ImageNet, which class_cond means there
_WIDTHS: dict[int, tuple[float, ...]] = {  # channel_mult by image size, where none is given
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
}


def _numbers(value: object) -> object:
    """Lists may be written as there: ``"32,16,8"``."""
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


Sizes = Annotated[tuple[int, ...], BeforeValidator(_numbers)]
Factors = Annotated[tuple[float, ...], BeforeValidator(_numbers)]
NoEffect = bool | str | float | None  # flags of training and of their sampler


class AdmConfig(NetworkConfig):
    """What decides the network and its noise; flags without a part in that are accepted."""

    image_size: int = Field(default=64, gt=0)
    num_channels: int = Field(default=128, gt=0)
    num_res_blocks: Depth = 2
    num_heads: int = Field(default=4, gt=0)
    num_heads_upsample: int = -1
    num_head_channels: int = -1
    attention_resolutions: Sizes = (16, 8)
    channel_mult: Factors = ()
    class_cond: bool = False
    use_scale_shift_norm: bool = True
    resblock_updown: bool = False
    use_new_attention_order: bool = False
    learn_sigma: bool = False
    diffusion_steps: int = Field(default=1000, ge=2)
    noise_schedule: Literal["linear", "cosine"] = "linear"
    rescale_timesteps: bool = False
    predict_xstart: bool = False
    n_classes: int = Field(default=N_CLASSES, gt=0)  # ours: for data sets of another size
    in_channels: int = Field(default=3, gt=0)  # ours
    use_fp16: NoEffect = None
    use_checkpoint: NoEffect = None
    dropout: NoEffect = None
    use_kl: NoEffect = None
    timestep_respacing: NoEffect = None
    rescale_learned_sigmas: NoEffect = None

    @property
    def process(self) -> VpDiscrete:
        """The noise it was trained on; linear betas are scaled to the number of steps."""
        n = self.diffusion_steps
        if self.noise_schedule == "cosine":
            return vp_discrete("cosine", n=n)
        return vp_discrete("linear", n=n, beta_start=0.1 / n, beta_end=20.0 / n)

    @property
    def shape(self) -> UNetShape:
        """The U-Net that these settings describe."""
        heads = self.num_head_channels
        up_heads = self.num_heads_upsample
        return UNetShape(
            in_channels=self.in_channels,
            out_channels=self.in_channels * (2 if self.learn_sigma else 1),
            widths=widths(self.image_size, self.num_channels, self.channel_mult),
            model_channels=self.num_channels,
            n_blocks=self.num_res_blocks,
            attention_strides=strides(self.image_size, self.attention_resolutions),
            n_heads=self.num_heads,
            n_up_heads=self.num_heads if up_heads == -1 else up_heads,
            head_channels=None if heads == -1 else heads,
            scales=self.use_scale_shift_norm,
            resamples_in_blocks=self.resblock_updown,
            heads_inside=self.use_new_attention_order,
            n_classes=self.n_classes if self.class_cond else None,
        )


class ClassifierConfig(NetworkConfig):
    """The classifier's flags; its pooling is by attention, as in all released ones."""

    image_size: int = Field(default=64, gt=0)
    classifier_width: int = Field(default=128, gt=0)
    classifier_depth: Depth = 2
    classifier_attention_resolutions: Sizes = (32, 16, 8)
    classifier_use_scale_shift_norm: bool = True
    classifier_resblock_updown: bool = True
    classifier_pool: Literal["attention"] = "attention"
    classifier_use_fp16: NoEffect = None
    channel_mult: Factors = ()  # ours
    n_classes: int = Field(default=N_CLASSES, gt=0)  # ours
    in_channels: int = Field(default=3, gt=0)  # ours

    @property
    def shape(self) -> UNetShape:
        """The classifier that these settings describe."""
        return UNetShape(
            in_channels=self.in_channels,
            out_channels=self.n_classes,
            widths=widths(self.image_size, self.classifier_width, self.channel_mult),
            model_channels=self.classifier_width,
            n_blocks=self.classifier_depth,
            attention_strides=strides(self.image_size, self.classifier_attention_resolutions),
            n_heads=1,
            n_up_heads=1,
            head_channels=64,
            scales=self.classifier_use_scale_shift_norm,
            resamples_in_blocks=self.classifier_resblock_updown,
            heads_inside=False,
            n_classes=None,
        )


def widths(image_size: int, channels: int, factors: tuple[float, ...]) -> tuple[int, ...]:
    """Channels at each resolution; raises `InvalidConfig` for a size without usual ones."""
    chosen = factors or _WIDTHS.get(image_size)
    if chosen is None:
        raise InvalidConfig(
            f"channel_mult: there is no usual one for {image_size=} (only for "
            f"{', '.join(map(str, sorted(_WIDTHS)))}); give the one it was trained with"
        )
    return tuple(int(factor * channels) for factor in chosen)


def strides(image_size: int, resolutions: tuple[int, ...]) -> tuple[int, ...]:
    """How much coarser than the image those resolutions are."""
    return tuple(image_size // resolution for resolution in resolutions)
