"""Trains the two U-Nets of `tests.support.small_nets` and writes them in half precision.

Run with ``python -m tests.support.train_small_nets [--steps N] [epsilon velocity]``; some minutes
for each on one core.  The weights in tests/data/small_nets are those of 1,500 steps.
"""

import argparse
import copy
import math

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.support.small_nets import N_INDICES, SHAPE, WEIGHTS, images, untrained

BATCH, RATE, KEPT = 64, 3e-3, 0.995  # images, learning rate, the average's memory


def noised(name: str, x0: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noisy images, the timesteps that a network is told, and what it should answer."""
    noise = torch.randn((len(x0), *SHAPE), generator=draw)
    if name == "velocity":
        t = torch.sigmoid(torch.randn(len(x0), generator=draw))
        share = t.reshape(-1, 1, 1, 1)
        return (1 - share) * x0 + share * noise, t * N_INDICES, noise - x0
    betas = torch.linspace(1e-4, 0.02, N_INDICES, dtype=torch.float64)  # DDPMScheduler's
    product = torch.cumprod(1 - betas, dim=0).float()
    index = torch.randint(0, N_INDICES, (len(x0),), generator=draw)
    signal = product[index].reshape(-1, 1, 1, 1)
    return signal.sqrt() * x0 + (1 - signal).sqrt() * noise, index, noise


def trained(name: str, n_steps: int) -> nn.Module:
    """The average of the weights of the last hundreds of steps."""
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(1)
    real, net = images(), untrained().train()
    average = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    for step in range(n_steps):
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / 100)
            group["lr"] = RATE * warm * 0.5 * (1 + math.cos(math.pi * step / n_steps))
        chosen = real[torch.randint(0, len(real), (BATCH,), generator=draw)]
        x, timestep, wanted = noised(name, chosen, draw)
        loss = nn.functional.mse_loss(net(x, timestep, return_dict=False)[0], wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        kept = min(KEPT, (step + 1) / (step + 10))
        with torch.no_grad():
            for mine, theirs in zip(average.parameters(), net.parameters(), strict=True):
                mine.lerp_(theirs, 1 - kept)
    return average


def main() -> None:
    """Writes a file for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=["epsilon", "velocity"])
    parser.add_argument("--steps", type=int, default=1500)
    asked = parser.parse_args()
    WEIGHTS.mkdir(exist_ok=True)
    for name in asked.names:
        weights = trained(name, asked.steps).state_dict()
        half = {key: value.half().contiguous() for key, value in weights.items()}
        save_file(half, WEIGHTS / f"{name}.safetensors")


if __name__ == "__main__":
    main()
