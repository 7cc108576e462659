"""Search schedules for a model that is in memory; the ten lines that do it are those of `main`.

The model is a small denoiser of handwritten digits, trained above them in some seconds:

    python examples/live_model.py
"""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import s3search
from s3search.processes import edm
from s3search.run.found import SearchResult


class Denoiser(nn.Module):
    """D(x, sigma) -> x0 on (B, 1, 8, 8), preconditioned as in EDM."""

    process = edm(sigma_min=0.02, sigma_max=20.0)
    sample_shape = (1, 8, 8)
    spread = 0.85  # of a pixel of the real images

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(65, 256), nn.SiLU(), nn.Linear(256, 256), nn.SiLU(), nn.Linear(256, 64)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        sigma = t.clamp(min=self.process.sigma_min).reshape(-1, 1)
        total = torch.sqrt(sigma**2 + self.spread**2)
        pixels = x.flatten(1)
        f = self.layers(torch.cat([pixels / total, sigma.log() / 4], dim=1))
        x0 = (self.spread / total) ** 2 * pixels + sigma * self.spread / total * f
        return x0.view_as(x)


def trained(images: Tensor, steps: int) -> Denoiser:
    """A denoiser after some steps of gradient descent."""
    torch.manual_seed(0)
    denoiser = Denoiser()
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=1e-3)
    for _ in range(steps):
        x0 = images[torch.randint(len(images), (256,))]
        sigma = (1.2 * torch.randn(256) - 0.8).exp().clamp(0.02, 20.0)
        x = x0 + sigma.reshape(-1, 1, 1, 1) * torch.randn_like(x0)
        weight = (1 / sigma**2 + 1 / denoiser.spread**2).reshape(-1, 1, 1, 1)
        loss = (weight * (denoiser(x, sigma) - x0) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return denoiser


def main(steps: int = 2000, evaluations: int = 50, n_images: int = 500) -> SearchResult:
    """Trains, searches, and saves what was found in the working directory."""
    images = torch.tensor(load_digits().images, dtype=torch.float32)[:, None] / 8 - 1
    model = trained(images, steps)
    found = s3search.search(
        model,
        reference=images,
        features="digits",
        nfe=5,
        evaluations=evaluations,
        n_images=n_images,
    )
    found.save("schedule.json")
    found.plot().savefig("schedule.png")
    print(found)
    print(found.table[["name", "distance", "low", "high"]])
    return found


if __name__ == "__main__":
    main()
