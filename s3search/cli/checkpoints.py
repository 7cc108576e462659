"""Commands of checkpoints: what a pickle would run, and its weights without running it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from s3search.cli.options import AsJson
from s3search.cli.output import OUT, print_json, writable
from s3search.errors import InvalidConfig

checkpoint = typer.Typer(
    name="checkpoint",
    help="Look into a pickled checkpoint, or convert it to safetensors; nothing of it is run.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

PickleFile = Annotated[Path, typer.Argument(metavar="PICKLE", help="A network's .pkl of NVlabs.")]


@checkpoint.command()
def inspect(pickle: PickleFile, as_json: AsJson = False) -> None:
    """Name the functions that loading a pickle would call; fails where that cannot be told."""
    from s3search.models.checkpoints import existing
    from s3search.models.edm.pickle_names import names_of_pickle
    from s3search.models.edm.pickles import foreign_of

    file = existing(pickle)
    found = names_of_pickle(file)
    foreign = foreign_of(found.names)
    if as_json:
        calls = {"calls": found.names, "unusual": foreign, "cannot_be_told": found.doubt}
        print_json({"file": str(file), **calls})
    else:
        _say(found.names, foreign)
    if found.doubt is not None:
        raise InvalidConfig(
            f"{file}: what else loading it would call cannot be told ({found.doubt}): "
            "do not trust it"
        )


def _say(names: Sequence[str], foreign: Sequence[str]) -> None:
    for name in names:
        note = "  (no checkpoint of NVlabs needs this)" if name in foreign else ""
        OUT.print(f"{name}{note}", highlight=False, soft_wrap=True)


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
    if as_json:
        print_json({"file": str(output), **settings})
    else:
        shown = ", ".join(f"{key} {value}" for key, value in settings.items())
        OUT.print(f"wrote {output}: {shown}", highlight=False, soft_wrap=True)
