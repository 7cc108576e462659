"""Search with a metric of your own, and let a second one look at the same images.

Here it is a feature extractor: any callable from images (B, C, H, W) in [-1, 1] to features
(B, d), between which the Fréchet distance is taken.  It should be made of torch operations alone,
so that the polish can follow its gradient.  A score of single images is given by ``metric=`` in
its place (docs/how-to/own-metric.md).

    python examples/own_metric.py
"""

import torch
from torch import Tensor

import s3search
from s3search.run.found import SearchResult


def spectrum(images: Tensor) -> Tensor:  # (B, C, H, W) -> (B, d)
    """How strong the low spatial frequencies of an image are, on a logarithmic scale."""
    strength = torch.fft.rfft2(images.mean(dim=1), norm="ortho").abs()
    return torch.log1p(strength[:, :6, :4]).flatten(1)


def main(evaluations: int = 50, n_images: int = 500) -> SearchResult:
    """Searches for the embedded digits model, on which both metrics are then measured."""
    found = s3search.search(
        "digits",
        reference="digits",
        features=spectrum,
        validation_metric={"features": "digits", "network": "b"},  # chooses nothing
        nfe=5,
        evaluations=evaluations,
        n_images=n_images,
        validation={"n_images": 4 * n_images, "finalists": 4},
    )
    print(found.table[["name", "distance", "second_distance"]])
    apart = s3search.evaluate(
        found.schedule, "digits", reference="digits", features=spectrum, n_images=4 * n_images
    )
    print(f"on other noise: {apart.value:.4f}, 95 % {apart.interval}, extractor {apart.extractor}")
    return found


if __name__ == "__main__":
    main()
