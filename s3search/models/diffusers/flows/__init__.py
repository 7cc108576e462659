"""Pipelines of flow transformers, each described by data: one entry of a table a class."""

from s3search.models.diffusers.flows.making import flow_pipeline, usual_scale
from s3search.models.diffusers.flows.table import FLOWS

__all__ = ["FLOWS", "flow_pipeline", "usual_scale"]
