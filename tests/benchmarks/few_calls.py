"""The README's first picture: ``python -m tests.benchmarks.few_calls FILE.png`` (a minute).

Digits from the same noise: a solve of 100 calls, what k-diffusion runs by default with three, and
what a search of 150,000 images finds for three.
"""

import sys
from pathlib import Path

import torch

import s3search
from s3search.models.digits import load
from s3search.processes import Edm
from s3search.schedules import published
from s3search.schedules.published.k_diffusion import K_SAMPLERS, karras_sigmas
from s3search.show.pictures import draw_samples

NFE, _SHOWN = 3, 16


def main(path: Path) -> None:
    """Searches, prints the table, and writes the picture."""
    denoiser = load()
    process = denoiser.process
    assert isinstance(process, Edm)
    default = K_SAMPLERS["dpmpp_2m"].make(process, karras_sigmas(NFE, process))
    found = s3search.search(
        "digits", reference="digits", features="digits", nfe=NFE, evaluations=150
    )
    print(found)
    table = found.table.set_index("name")["distance"]
    winner = found.table[found.table["is_winner"]].iloc[0]["distance"]
    blurred = table["k-diffusion dpmpp_2m"]
    rows = {
        "100 network calls": published.dpmpp_2m(process, nfe=100),
        f"3 calls, DPM-Solver++(2M), Karras\ndistance {blurred:.2f}": default,
        f"3 calls, found by s3search\ndistance {winner:.2f}": found.schedule,
    }
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn((_SHOWN, *denoiser.sample_shape), generator=generator)
    condition = denoiser.condition(_SHOWN, generator)
    drawn = [
        (label, s3search.sample(denoiser, s3search.compile_plan(schedule), noise, **condition))
        for label, schedule in rows.items()
    ]
    draw_samples(drawn, path, "from the same noise")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
