"""What pictures and a study's summary say about free steps."""

from pathlib import Path

from optuna.distributions import FloatDistribution
from rich.console import Console

from s3search import published
from s3search.pictures import describe_rule, draw_schedule, terminal_drawing
from s3search.processes import edm
from s3search.rules import Free
from s3search.solvers.freed import freed
from s3search.study.summary import DISTRIBUTIONS, summary


def test_free_steps_are_drawn_and_described(tmp_path: Path) -> None:
    schedule = freed(published.heun(edm(), nfe=5))
    console = Console(width=160)
    with console.capture() as shown:
        console.print(terminal_drawing(schedule))
    assert "Free, data, 2 predictions" in shown.get()
    draw_schedule(schedule, tmp_path / "free.png")
    assert (tmp_path / "free.png").read_bytes().startswith(b"\x89PNG")
    assert describe_rule(Free(q=(0.5, 0.5))) == ("Free", "data", 2)


def test_the_summary_of_a_long_free_schedule_fits_its_distributions() -> None:
    schedule = freed(published.dpmpp_2m(edm(), nfe=40))
    values = summary(schedule, is_baseline=False)
    assert values["data_share"] == 1.0
    order = DISTRIBUTIONS["order_mean"]
    assert isinstance(order, FloatDistribution)
    assert order.low <= values["order_mean"] <= order.high
