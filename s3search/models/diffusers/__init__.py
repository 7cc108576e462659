"""Any pipeline of diffusers as a denoiser: ``[model] loader = "diffusers"``.

diffusers itself is imported where a pipeline is loaded and nowhere else.
"""

from s3search.models.diffusers.loading import load

__all__ = ["load"]
