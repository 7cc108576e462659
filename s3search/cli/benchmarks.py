"""The command that compares searches."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s3search.cli.options import Address, AsJson, Sets
from s3search.cli.output import ERR, OUT, answer, make_folder, resumable, say

if TYPE_CHECKING:
    from s3search.tasks.benchmark.running import Made


def bench(  # noqa: PLR0913, PLR0917 (one parameter per option)
    study: Annotated[
        Path | None,
        typer.Argument(metavar="[STUDY.toml]", help="Your model; else the embedded digits."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the benchmark.")
    ] = Path("s3search-bench"),
    nfe: Annotated[
        list[int] | None, typer.Option("--nfe", help="Network calls; may be given several times.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="How many seeds; else 3.")
    ] = None,
    first_seed: Annotated[int, typer.Option("--first-seed", min=0, help="The first of them.")] = 0,
    budgets: Annotated[
        list[int] | None,
        typer.Option(
            "--budget",
            min=1,
            help="Evaluations of a search; several times. Else an eighth, a quarter, half and all "
            "of the study file's.",
        ),
    ] = None,
    algorithms: Annotated[
        list[str] | None, typer.Option("--algorithm", help="A search; several times.")
    ] = None,
    ladder: Annotated[
        bool, typer.Option("--ladder/--no-ladder", help="Also s3 with its rungs one by one.")
    ] = True,
    address: Address = None,
    sets: Sets = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A smoke test; its numbers mean little.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare searches: what each finds for its network calls."""
    from s3search.tasks.benchmark import report
    from s3search.tasks.benchmark.plan import DEFAULT_ALGORITHMS, BenchmarkOptions, make_plan
    from s3search.tasks.benchmark.running import run
    from s3search.tasks.benchmark.tables import progress_line

    choices = BenchmarkOptions(
        nfe=tuple(nfe or ()),
        n_seeds=seeds,
        first_seed=first_seed,
        budgets=tuple(budgets or ()),
        algorithms=tuple(algorithms or DEFAULT_ALGORITHMS),
        ladder=ladder,
        address=address,
        sets=tuple(sets or ()),
        is_quick=quick,
    )
    plan = make_plan(study, output.resolve(), choices)
    make_folder(output)
    screen = ERR if as_json else OUT

    def tell(made: "Made") -> None:
        say(progress_line(made), on=screen)

    with resumable(str(output)):
        run(plan, tell)
    found, files = report.write(output)
    results = [
        {**asdict(each), "gain": each.gain, "gain_less_bias": each.gain_less_bias}
        for each in found
    ]
    value = {"results": results, "files": [str(file) for file in files]}
    answer(value, *(f"wrote {file}" for file in files), as_json=as_json)
