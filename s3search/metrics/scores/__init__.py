"""Scores: one number for each image, which a search may raise or lower.

Each module has a ``load`` that a study file names with ``[metric] score``; what it returns keeps
the contract of `s3search.metrics.scores.contract` and downloads nothing unless it is allowed to.
"""
