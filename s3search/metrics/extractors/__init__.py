"""Pretrained networks as feature extractors: images (B, C, H, W) in [-1, 1] -> features (B, d).

Each module has a ``load`` that a study file names; what it returns is differentiable, is called
after its weights, and downloads nothing unless it is told to.
"""
