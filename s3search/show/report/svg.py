"""Figures as SVG inside a page: letters stay text, colours become the page's, ids stay unique."""

import io
import re
from collections.abc import Callable
from xml.etree import ElementTree as ET

import matplotlib as mpl
from matplotlib.figure import Figure

SERIES = ("#0072b2", "#d55e00", "#009e73", "#aa5599", "#b07d00", "#3590c0")  # after Okabe and Ito
MUTED, GRID = "#767676", "#dcdcdc"

_COLOURS = {
    **{colour: f"var(--series-{i})" for i, colour in enumerate(SERIES)},
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    "#000000": "currentColor",
    "#222222": "currentColor",
    "#555555": "var(--muted)",
}
_PAPER = {"#ffffff": "var(--paper)"}  # of shapes; white letters stand on coloured bars and stay
_HEX = re.compile(r"#[0-9a-fA-F]{6}\b")
_FAMILY = re.compile(r"font-family: [^;]*;?\s*")
_FONT = re.compile(r"font: ([^;]*?)([\d.]+px) [^;]*")


def svg_of(draw: Callable[[], Figure], name: str, description: str) -> str:
    """The figure that ``draw`` makes, as an `<svg>` element.

    ``name`` sets its ids apart from those of other figures on the page; ``description`` is read
    aloud in place of it.
    """
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure = draw()
        buffer = io.BytesIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    root = ET.fromstring(buffer.getvalue())
    _strip(root)
    width = float(root.attrib.pop("width").removesuffix("pt")) * 4 / 3
    root.attrib.pop("height")
    root.attrib.pop("version", None)
    for element in root.iter():
        _adapt(element, name)
    root.set("role", "img")
    root.set("aria-label", description)
    root.set("style", f"--width: {width:.0f}px")
    return ET.tostring(root, encoding="unicode")


def _strip(root: ET.Element) -> None:
    """Drops namespaces, which HTML does not need, and a style sheet that would be the page's."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key in [key for key in element.attrib if key.startswith("{")]:
            element.set(key.rpartition("}")[2], element.attrib.pop(key))
        for child in list(element):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                element.remove(child)


def _adapt(element: ET.Element, name: str) -> None:
    for key, value in element.attrib.items():
        match key:
            case "id":
                element.set(key, f"{name}-{value}")
            case "href":
                element.set(key, f"#{name}-{value.removeprefix('#')}")
            case "clip-path":
                element.set(key, value.replace("url(#", f"url(#{name}-"))
            case "style":
                element.set(key, _style(value, is_text=element.tag in ("text", "tspan")))


def _style(style: str, *, is_text: bool) -> str:
    colours = _COLOURS if is_text else _COLOURS | _PAPER
    style = _HEX.sub(lambda match: colours.get(match[0].lower(), match[0]), style)
    return _FONT.sub(_size, _FAMILY.sub("", style))  # matplotlib 3.11 and before


def _size(font: re.Match[str]) -> str:
    """The letters' size and weight without their family, which is the page's."""
    is_bold = "700" in font[1] or "bold" in font[1]
    return f"font-size: {font[2]}" + ("; font-weight: bold" if is_bold else "")
