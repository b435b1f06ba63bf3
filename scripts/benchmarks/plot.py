"""The ratios of a run as a picture: one bar each, its spread, and the target."""

from html import escape

ROW, LEFT, WIDTH = 26, 560, 360
MOST = 2.0


def svg(rows):
    """`rows`: (title, median, least, most, target or None), each native time / our time: more is better."""
    height = ROW * len(rows) + 60
    x = lambda value: LEFT + WIDTH * min(value, MOST) / MOST  # noqa: E731
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 80}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="100%" height="100%" fill="white"/><text x="{LEFT}" y="18">speed against native: more is better, 1 is equal, | is the target</text>',
        f'<line x1="{x(1)}" y1="26" x2="{x(1)}" y2="{height - 20}" stroke="#999" stroke-dasharray="3 3"/>',
    ]
    for number, (title, median, least, most, target) in enumerate(rows):
        y = 32 + ROW * number
        good = target is None or median >= target
        parts.append(f'<text x="{LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(title[:88])}</text>')
        parts.append(f'<rect x="{LEFT}" y="{y + 2}" width="{x(median) - LEFT:.1f}" height="16" fill="{"#4a90d9" if good else "#d98a4a"}"/>')
        parts.append(f'<line x1="{x(least):.1f}" y1="{y + 10}" x2="{x(most):.1f}" y2="{y + 10}" stroke="#222"/>')
        if target is not None and target <= MOST:
            parts.append(f'<line x1="{x(target):.1f}" y1="{y}" x2="{x(target):.1f}" y2="{y + 20}" stroke="#222" stroke-width="2"/>')
        parts.append(f'<text x="{max(x(median), x(most)) + 6:.1f}" y="{y + 14}">{median:.2f}</text>')
    return "\n".join([*parts, "</svg>", ""])
