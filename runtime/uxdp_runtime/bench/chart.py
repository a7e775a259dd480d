"""A bar chart of a measurement as SVG: a group of bars for each number of flows, a bar for each variant."""

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

from .session import Figures

_BAR: Final = 26  # widths and heights in SVG's user units, which browsers show as pixels
_GAP: Final = 34
_LEFT: Final = 56
_TOP: Final = 48
_HEIGHT: Final = 240
_BOTTOM: Final = 64
_LINES: Final = 5
# Distinct in grey as well; from the palette of Okabe and Ito.
_COLOURS: Final = ("#555555", "#0072b2", "#e69f00", "#56b4e9", "#009e73", "#cc79a7")


def draw(title: str, figures: Sequence[Figures]) -> str:
    """Return the chart as an SVG document.

    :param figures: of all variants and numbers of flows; not empty
    """
    flows = list(dict.fromkeys(item.flows for item in figures))
    variants = list(dict.fromkeys(item.variant for item in figures))
    top = max(max(item.net_ns for item in figures), 1.0) * 1.08
    group = len(variants) * _BAR + _GAP
    width = _LEFT + len(flows) * group + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{_TOP + _HEIGHT + _BOTTOM}" '
        f'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="20" font-size="15">{escape(title)}</text>',
        f'<text x="{_LEFT}" y="38" fill="#555">ns per frame; less is better</text>',
    ]
    for line in range(_LINES + 1):
        value = top * line / _LINES
        y = _TOP + _HEIGHT - _HEIGHT * line / _LINES
        parts.append(f'<line x1="{_LEFT}" x2="{width - 8}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#555">{value:.0f}</text>')
    for item in figures:
        column = variants.index(item.variant)
        x = _LEFT + _GAP / 2 + flows.index(item.flows) * group + column * _BAR
        height = _HEIGHT * max(item.net_ns, 0.0) / top
        y = _TOP + _HEIGHT - height
        colour = _COLOURS[column % len(_COLOURS)]
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{_BAR - 3}" height="{height:.1f}" fill="{colour}">'
            f"<title>{escape(item.variant)}, {item.flows} flows: {item.net_ns:.1f} ns</title></rect>"
        )
        parts.append(
            f'<text x="{x + (_BAR - 3) / 2:.1f}" y="{y - 3:.1f}" text-anchor="middle" font-size="10">'
            f"{item.net_ns:.0f}</text>"
        )
    for number, count in enumerate(flows):
        x = _LEFT + number * group + group / 2
        label = f"{count:,} flow{'' if count == 1 else 's'}"
        parts.append(f'<text x="{x:.1f}" y="{_TOP + _HEIGHT + 18}" text-anchor="middle">{label}</text>')
    x = float(_LEFT)
    for column, variant in enumerate(variants):
        y = _TOP + _HEIGHT + 36
        parts.append(f'<rect x="{x:.1f}" y="{y}" width="10" height="10" fill="{_COLOURS[column % len(_COLOURS)]}"/>')
        parts.append(f'<text x="{x + 14:.1f}" y="{y + 9}">{escape(variant)}</text>')
        x += 26 + 6.6 * len(variant)
    return "\n".join((*parts, "</svg>", ""))
