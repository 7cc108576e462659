"""Commands of checkpoints: what a pickle would run, and its weights without running it."""

from pathlib import Path
from typing import Annotated

import typer

from s3search.cli.options import AsJson, command_group
from s3search.cli.output import answer, writable
from s3search.errors import InvalidConfig

checkpoint = command_group(
    "checkpoint",
    "Look into a pickle, or convert it; nothing of it is run.",
)

PickleFile = Annotated[Path, typer.Argument(metavar="PICKLE", help="A network's .pkl of NVlabs.")]


@checkpoint.command()
def inspect(pickle: PickleFile, as_json: AsJson = False) -> None:
    """Name the functions that loading a pickle would call.

    It fails where that cannot be told.
    """
    from s3search.models.checkpoints import existing
    from s3search.models.edm.pickle_names import names_of_pickle
    from s3search.models.edm.pickles import foreign_of

    file = existing(pickle)
    found = names_of_pickle(file)
    foreign = foreign_of(found.names)
    note = "  (no checkpoint of NVlabs needs this)"
    lines = [name + note * (name in foreign) for name in found.names]
    calls = {"calls": found.names, "unusual": foreign, "cannot_be_told": found.doubt}
    answer({"file": str(file), **calls}, *lines, as_json=as_json)
    if found.doubt is not None:
        raise InvalidConfig(
            f"{file}: what else loading it would call cannot be told ({found.doubt}): "
            "do not trust it"
        )


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
