"""Gradient polish: a schedule's numbers moved downhill on the metric, on a worker."""
