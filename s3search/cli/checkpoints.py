"""Commands of checkpoints: what a pickle would run, and its weights without running it."""

from pathlib import Path
from typing import Annotated

import typer

from s3search.cli.options import AsJson, command_group
from s3search.cli.output import answer, writable

checkpoint = command_group(
    "checkpoint",
    "Look into a pickled checkpoint, or convert it to safetensors; nothing of it is run.",
)

PickleFile = Annotated[Path, typer.Argument(metavar="PICKLE", help="A network's .pkl of NVlabs.")]


@checkpoint.command()
def inspect(pickle: PickleFile, as_json: AsJson = False) -> None:
    """Name the functions that loading a pickle would call."""
    from s3search.models.checkpoints import existing
    from s3search.models.edm.pickles import foreign_globals, globals_named

    file = existing(pickle)
    names, foreign = globals_named(file), foreign_globals(file)
    note = "  (no checkpoint of NVlabs needs this)"
    lines = [name + note * (name in foreign) for name in names]
    answer({"file": str(file), "calls": names, "unusual": foreign}, *lines, as_json=as_json)


@checkpoint.command()
def convert(
    pickle: PickleFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write (.safetensors).")],
    as_json: AsJson = False,
) -> None:
    """Write the weights and settings of an EDM pickle as safetensors."""
    from s3search.models import edm

    writable(output)
    settings = edm.convert(pickle, output)
    shown = ", ".join(f"{key} {value}" for key, value in settings.items())
    answer({"file": str(output), **settings}, f"wrote {output}: {shown}", as_json=as_json)
