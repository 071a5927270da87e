"""Drawings for papers and for the page."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pandas as pd
import vl_convert
from matplotlib.figure import Figure
from PIL import Image

if TYPE_CHECKING:
    from silent_study.report.pictures import Strip

INK, PAPER = "#1f2328", "#fdfefe"
GREY = "#808080"
# Okabe and Ito's idea: colours that the colour-blind can tell apart, here for a light and for a dark ground. The least
# difference of two of the first six is 32 in CIELAB, of all twelve 14, also under each kind of colour blindness.
PALETTE = ("#4e4dca", "#e18e00", "#0fb772", "#bb1719", "#b990dd", "#874b69")
MORE = ("#734e95", "#c383a2", "#a03e43", "#688bf6", "#e36351", "#847aae")
WIDTHS = {"": 6.9, "-column": 3.3}
"""Inches of a page's and of a column's width by the ending of a file's stem."""

_DPI = 200
vl_convert.register_font_directory(str(Path(mpl.get_data_path()) / "fonts" / "ttf"))
_SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "silent-gradients",
    "svg.fonttype": "none",
    "savefig.facecolor": PAPER,
    "axes.facecolor": "none",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}
_STYLE = "<style>svg{color:#1f2328}@media (prefers-color-scheme:dark){svg{color:#d5d9e0}}</style>"
_PARTS = ("axis", "legend", "header", "title")
_CONFIG: dict[str, Any] = {
    "font": "Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif",
    "view": {"stroke": None},
    "background": PAPER,
    "text": {"color": INK},
    **{part: {"labelColor": INK, "titleColor": INK, "labelFontSize": 9, "titleFontSize": 10} for part in _PARTS},
}
_CONFIG["axis"] |= {"domainColor": INK, "tickColor": INK, "gridColor": "#80808040", "titleFontWeight": "normal"}
_CONFIG["legend"] |= {"orient": "bottom", "columns": 2, "columnPadding": 20, "labelLimit": 0, "symbolOpacity": 1}
_CONFIG["legend"]["title"] = None
_CONFIG["title"] |= {"color": INK, "fontSize": 10, "fontWeight": "normal"}


@dataclass(frozen=True)
class Drawing:
    """A figure."""

    name: str  # stem of its files
    title: str
    description: str  # what it shows, for people who cannot see it
    files: Mapping[str, bytes]  # content by name: SVG and PDF in each of ``WIDTHS``, PNG in the first, data as CSV
    chart: Mapping[str, Any] | None  # the interactive chart in its place as a Vega-Lite specification
    strips: Sequence[Strip]  # the images that it consists of; empty for others

    def embedded(self, ending: str = "") -> str:
        """Return its SVG for the page, whose ink it takes; the ending is one of ``WIDTHS``."""
        return for_page(self.files[f"{self.name}{ending}.svg"].decode())


@contextmanager
def matplotlib_defaults() -> Iterator[None]:
    """Context manager and decorator: matplotlib's defaults with the figures' ink, whatever the matplotlibrc says."""
    settings: Any = _SETTINGS
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        yield


def drawing(
    name: str,
    title: str,
    description: str,
    draw: Callable[[float], Figure | dict[str, Any]],
    data: pd.DataFrame,
    chart: dict[str, Any] | None = None,
    strips: Sequence[Strip] = (),
) -> Drawing:
    """Return a ``Drawing``, rendered by ``draw`` in a width in inches as a matplotlib figure or a Vega-Lite chart."""
    files = {f"{name}.csv": data.to_csv(index=False, lineterminator="\n", float_format="%.9g").encode()}
    for ending, width in WIDTHS.items():
        made = exported(draw(width), width)
        files |= {f"{name}{ending}.{kind}": content for kind, content in made.items()}
    return Drawing(name, title, description, files, chart and in_page(chart), strips)


def for_page(svg: str) -> str:
    """Return an SVG on a transparent ground that follows the reader's colour scheme."""
    text = svg.replace(INK, "currentColor").replace(PAPER, "none")
    start = text.index(">", text.index("<svg")) + 1
    return text[:start] + _STYLE + text[start:]


def in_page(chart: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Vega-Lite specification in the ink of the page around it."""
    larger = {part: {**_CONFIG[part], "labelFontSize": 12, "titleFontSize": 12} for part in _PARTS}
    text = json.dumps({**chart, "config": {**_CONFIG, **larger}})
    found: dict[str, Any] = json.loads(text.replace(INK, "currentColor").replace(f'"{PAPER}"', "null"))
    return found


def exported(drawn: Figure | dict[str, Any], width: float) -> dict[str, bytes]:
    """Return a drawing as SVG and PDF, and of the page's width as PNG, in a width in inches; its own is near that."""
    png = io.BytesIO()
    if isinstance(drawn, Figure):
        buffer = io.StringIO()
        with matplotlib_defaults():
            drawn.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
            if width == WIDTHS[""]:
                # Several times as fast as from the SVG, where most of a gathering's time would go.
                drawn.savefig(png, format="png", dpi=_DPI, metadata={"Software": None})
        text = buffer.getvalue()
    else:
        text = vl_convert.vegalite_to_svg({**drawn, "config": {**_CONFIG, "aria": False}})
    own, height = (float(size) for size in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)[0])

    def sized(unit: str, per_inch: int) -> str:
        end = text.index(">", text.index("<svg"))
        size = f' width="{width * per_inch:g}{unit}" height="{height / own * width * per_inch:.6g}{unit}"'
        return re.sub(r' (?:width|height)="[^"]*"', "", text[:end]).replace("<svg", f"<svg{size}", 1) + text[end:]

    points = sized("", 72)
    # The order of a page's resources is drawn anew in every call, and means nothing; that of several fonts cannot be
    # sorted so easily, for which a figure has one.
    pdf = vl_convert.svg_to_pdf(points)
    pdf = re.sub(rb"(?:\n +/\w+ \d+ 0 R){2,}", lambda lines: b"\n".join(sorted(lines[0].split(b"\n"))), pdf)
    found = {"svg": sized("in", 1).encode(), "pdf": pdf}
    if width == WIDTHS[""]:
        if not isinstance(drawn, Figure):
            # Without transparency, and packed better.
            Image.open(io.BytesIO(vl_convert.svg_to_png(points, ppi=_DPI))).convert("RGB").save(png, "PNG")
        found["png"] = png.getvalue()
    return found
