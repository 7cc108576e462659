"""The command that trains the embedded model."""

from pathlib import Path
from typing import Annotated

import typer

from s3search.cli.options import AsJson
from s3search.cli.output import ERR, answer, writable

_TRAINING_LINE = 500  # iterations between two lines


def train_digits(
    output: Annotated[Path, typer.Option("--output", "-o", help="Safetensors file to write.")],
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Train the embedded digits model anew; minutes on a CPU."""
    from s3search.models.digits_training import train

    writable(output)

    def tell(stage: str, done: int, total: int, loss: float) -> None:
        if done % _TRAINING_LINE == 0 or done == total:
            ERR.print(f"{stage}: {done}/{total}, loss {loss:.4f}", highlight=False)

    result = train(output, seed=seed, progress=tell)
    answer({"file": str(output), **result}, f"wrote {output}: {result}", as_json=as_json)
