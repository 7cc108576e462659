"""The style sheet's own colours stand out from each other, in both schemes (WCAG 2.2, AA)."""

import re

import pytest

from s3search.show.report.page import style_sheet

TEXT, GRAPHICS = 4.5, 3.0  # 1.4.3 and 1.4.11


def _schemes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", style_sheet(), re.DOTALL)[:2]
    return {
        name: dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", text))
        for name, text in (("light", light), ("dark", dark))
    }


def _luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """From 1 to 21."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_known_for_known_colours() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_stand_out(scheme: str) -> None:
    colours = _schemes()[scheme]
    series = [name for name in colours if name.startswith("series-")]
    assert len(series) == 6
    for ground in ("paper", "band"):
        for ink in ("ink", "muted", "link"):
            assert contrast(colours[ink], colours[ground]) >= TEXT, (ink, ground)
        for name in series:
            assert contrast(colours[name], colours[ground]) >= GRAPHICS, (name, ground)
    for badge in ("link", "muted", "series-1", "series-2"):  # whose letters are the paper's
        assert contrast(colours["paper"], colours[badge]) >= TEXT, badge
