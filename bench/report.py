"""One table: a line per measure, a column per tool, each figure beside its ratio to Celery's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .cases import Figures

BASE = "celery"


@dataclass(frozen=True)
class Line:
    """A measure: its key among the figures, what to call it, how to print it, and whether more is better."""

    key: str
    title: str
    form: str
    more_is_better: bool


LINES = (
    Line("noop.rate", "no-ops drained per second", "{:,.0f}", True),
    Line("noop.cpu_us", "  CPU of the worker's processes, µs/task", "{:,.1f}", False),
    Line("noop.redis_us", "  CPU of Redis, µs/task", "{:,.1f}", False),
    Line("answer.rate", "with results stored, per second", "{:,.0f}", True),
    Line("answer.cpu_us", "  CPU of the worker's processes, µs/task", "{:,.1f}", False),
    Line("answer.redis_us", "  CPU of Redis, µs/task", "{:,.1f}", False),
    Line("enqueue", "published per second, one process", "{:,.0f}", True),
    Line("p50_ms", "idle: publish → start, median ms", "{:.2f}", False),
    Line("p95_ms", "idle: publish → start, 95 % ms", "{:.2f}", False),
    Line("start_s", "exec → first task started, s", "{:.3f}", False),
    Line("pss_mb", "memory with 2 idle processes, MB PSS", "{:.1f}", False),
    Line("stop_s", "idle: TERM → gone, s", "{:.3f}", False),
)


def table(titles: Mapping[str, str], figures: Mapping[str, Figures]) -> str:
    """Return the table; `12.3x` beside a figure means 12.3 times better than Celery in this run."""
    rows = [["", *titles.values()]]
    for line in LINES:
        if any(line.key in figures[tool] for tool in titles):
            rows.append([line.title, *(_cell(line, figures[tool], figures.get(BASE, {})) for tool in titles)])
    return _aligned(rows)


def summary(titles: Mapping[str, str], figures: Mapping[str, Figures]) -> str:
    """Return one sentence: how much faster qworker drains than Celery and than the fastest of the others."""
    rates = {tool: figures[tool]["noop.rate"] for tool in titles if "noop.rate" in figures[tool]}
    own = rates.pop("qworker", None)
    if own is None or not rates:
        return ""
    fastest = max(rates, key=lambda tool: rates[tool])
    parts = [f"{own / rates[tool]:.1f} x {titles[tool]}" for tool in dict.fromkeys([BASE, fastest]) if tool in rates]
    return f"qworker drains {' and '.join(parts)} (the fastest of the others)."


def _cell(line: Line, own: Figures, base: Figures) -> str:
    if line.key not in own:
        return "–"
    value = own[line.key]
    if own is base or not base.get(line.key) or not value:
        return line.form.format(value) + " " * 8
    ratio = value / base[line.key] if line.more_is_better else base[line.key] / value
    return line.form.format(value) + f" {ratio:6.2f}x"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for title, *cells in rows:
        padded = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([title.ljust(widths[0]), *padded]))
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(line.rstrip() for line in lines)
