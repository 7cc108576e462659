r"""guided-diffusion's checkpoints (ADM, arXiv:2105.05233): a noise network, perhaps a classifier.

With eps the network's answer and a classifier p(y | x_t, t) of scale s (their algorithm 2),

    eps' = eps - s sigma grad_x log p(y | x, t)
    D    = (x - sigma eps') / alpha

A call with a classifier costs three passes through a network instead of one (the classifier's
forward and backward pass), and is counted as three network batches although the classifier is the
smaller network.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from s3search.errors import InvalidConfig
from s3search.models.checkpoints import (
    Labels,
    Settings,
    checked_labels,
    checked_settings,
    dtype_named,
    even_labels,
    existing,
    filled,
    merged_settings,
    read_tensors,
    unfilled,
)
from s3search.models.guided_diffusion.settings import AdmConfig, ClassifierConfig
from s3search.models.guided_diffusion.unet import Classifier, UNet
from s3search.solvers.shapes import over_the_rest

_PICKLES = (".pkl", ".pickle")


class AdmDenoiser(nn.Module):
    """D(x, t, labels) of a noise network, in whichever dtype its weights have.

    With ``clips`` D is clamped to [-1, 1], as guided-diffusion's own samplers do.
    """

    def __init__(
        self,
        config: AdmConfig,
        classifier: ClassifierConfig | None = None,
        *,
        scale: float = 1.0,
        clips: bool = False,
    ) -> None:
        super().__init__()
        self.process = config.process
        self.sample_shape = (config.in_channels, config.image_size, config.image_size)
        self.n_classes = config.n_classes if config.class_cond else 0
        self.network = UNet(config.shape)
        self.classifier: Classifier | None = None
        self.network_batches_per_call = 1
        if classifier is not None:
            self.n_classes = classifier.n_classes
            self.classifier = Classifier(classifier.shape, classifier.image_size)
            self.network_batches_per_call = 3
        self._config, self._scale, self._clips = config, scale, clips

    @property
    def skippable(self) -> UNet:
        """Whose blocks may be left out of a call: the classifier's may not."""
        return self.network

    def condition(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        """The classes (n,) of ``n`` images, evenly drawn; nothing for a network without."""
        return {"labels": even_labels(n, self.n_classes, generator)} if self.n_classes else {}

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """The clean image expected behind ``x``, in the dtype of ``x``."""
        wide = torch.promote_types(x.dtype, torch.float32)
        timesteps = t * (1000.0 / self.process.n) if self._config.rescale_timesteps else t
        given = labels if self._config.class_cond else None
        # learned variances stand in the second half of the channels
        answer: Tensor = self.network(x, timesteps, given)[:, : x.shape[1]].to(wide)
        levels = self.process.alpha(t.double()), self.process.sigma(t.double())
        alpha, sigma = (over_the_rest(each, answer) for each in levels)
        x0 = answer if self._config.predict_xstart else (x - sigma * answer) / alpha
        if self.classifier is not None and labels is not None:
            x0 = x0 + self._scale * sigma**2 / alpha * self._score(x, timesteps, labels)
        return (x0.clamp(-1.0, 1.0) if self._clips else x0).to(x.dtype)

    def _score(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """The gradient of log p(label | x, t) to x; differentiable itself where x is."""
        assert self.classifier is not None  # the caller looked
        is_differentiated = torch.is_grad_enabled() and x.requires_grad
        with torch.inference_mode(mode=False), torch.enable_grad():
            # tensors made in inference mode take no part in a gradient, their copies do
            at = x if is_differentiated else x.detach().clone().requires_grad_()
            log_p = self.classifier(at, t.clone()).float().log_softmax(-1)
            chosen = log_p.gather(1, labels.clone()[:, None]).sum()
            (score,) = torch.autograd.grad(chosen, at, create_graph=is_differentiated)
        return score


def load(
    path: str | Path,
    config: Settings | None = None,
    *,
    classifier: str | Path | None = None,
    classifier_config: Settings | None = None,
    classifier_scale: float = 1.0,
    clip: bool = False,
    labels: Labels = "uniform",
    dtype: str = "float32",
) -> AdmDenoiser:
    """The denoiser of a ``.pt`` or ``.safetensors`` state dict and the flags it was trained with.

    ``classifier`` is a second such file, of a classifier of noisy images.
    """
    checked_labels(labels)
    number = dtype_named(dtype)
    state, stored = _read(path, "model.path")
    settings = merged_settings(config, stored, field="model.config")
    adm = checked_settings(AdmConfig, settings, field="model.config")
    if labels == "none" and (adm.class_cond or classifier is not None):
        raise InvalidConfig(
            "model.labels: a network with class_cond, or with a classifier, needs classes; leave "
            "labels out"
        )
    guide: ClassifierConfig | None = None
    guiding: dict[str, Tensor] = {}
    if classifier is not None:
        guiding, stored = _read(classifier, "model.classifier")
        flags = merged_settings(classifier_config, stored, field="model.classifier_config")
        guide = checked_settings(ClassifierConfig, flags, field="model.classifier_config")
        _check_pair(adm, guide)
    elif classifier_config is not None or classifier_scale != 1.0:
        raise InvalidConfig("model.classifier: settings for a classifier, but no classifier file")
    denoiser = unfilled(
        lambda: AdmDenoiser(adm, guide, scale=float(classifier_scale), clips=clip),
        field="model.config",
    )
    filled(denoiser.network, state, number, path)
    if denoiser.classifier is not None and classifier is not None:
        filled(denoiser.classifier, guiding, number, classifier, field="model.classifier")
    return denoiser.eval()


def _read(path: str | Path, field: str) -> tuple[dict[str, Tensor], Mapping[str, Any] | None]:
    file = existing(path, field=field)
    if file.suffix in _PICKLES:
        raise InvalidConfig(
            f"{field}: {file} is a pickle; this loader reads state dicts (.pt, .safetensors), "
            'pickles of EDM are read by loader = "edm"'
        )
    return read_tensors(file, field=field)


def _check_pair(adm: AdmConfig, guide: ClassifierConfig) -> None:
    if guide.image_size != adm.image_size:
        raise InvalidConfig(
            f"model.classifier_config.image_size: {guide.image_size}, but the network makes "
            f"images of {adm.image_size}"
        )
    if adm.class_cond and guide.n_classes != adm.n_classes:
        raise InvalidConfig(
            f"model.classifier_config.n_classes: {guide.n_classes}, but the network knows "
            f"{adm.n_classes}"
        )
