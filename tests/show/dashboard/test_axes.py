"""What the axes of graphs on Optuna's pages show."""

from s3search.show.dashboard.cards import comparison_card


def _row(value: float, interval: tuple[float, float] | None) -> dict[str, object]:
    return {
        "value": value,
        "interval_95": interval,
        "is_baseline": value > 1,
        "is_winner": False,
        "name": f"solver {value}",
        "schedule_id": "0" * 32,
    }


def test_a_poor_value_and_an_interval_are_on_the_axis_whole() -> None:
    rows = [_row(0.05, (0.03, 0.06)), _row(0.2, None), _row(23.0, (22.0, 24.0))]
    low, high = comparison_card(5, rows).layout.xaxis.range
    assert 10**low < 0.03
    assert 23.0 < 10**high < 100.0


def test_an_interval_down_to_nothing_does_not_stretch_the_axis() -> None:
    rows = [_row(0.05, (1e-9, 0.06)), _row(0.2, None), _row(23.0, None)]
    low, _ = comparison_card(5, rows).layout.xaxis.range
    assert 0.01 < 10**low < 0.05
