"""Distances between what a schedule makes and the real images."""
