"""Any pipeline of diffusers as a model, by its own call."""

from s3search.integrations.pipelines.loading import load, runs_of

__all__ = ["load", "runs_of"]
