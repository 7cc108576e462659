"""What a benchmark leaves in its folder: all rows, the table and the pictures."""

from pathlib import Path

from s3search.files import write_text
from s3search.tasks.benchmark.pictures import draw_ladder, draw_quality, is_rung
from s3search.tasks.benchmark.results import Summary, read_rows, summaries, write_csv
from s3search.tasks.benchmark.tables import markdown


def write(folder: Path) -> tuple[list[Summary], list[Path]]:
    """Writes results.csv, table.md and the pictures from every finished study of the folder."""
    rows = read_rows(folder)
    found = summaries(rows)
    files = [folder / name for name in ("results.csv", "table.md")]
    write_csv(rows, files[0])
    write_text(files[1], markdown(found, rows))
    if any(each.held_out is not None for each in found):
        files.append(folder / "quality.png")
        draw_quality(found, files[-1])
    if any(is_rung(each.method) and each.held_out is not None for each in found):
        files.append(folder / "ladder.png")
        draw_ladder(found, files[-1])
    return found, files
