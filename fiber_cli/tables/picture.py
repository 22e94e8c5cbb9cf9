"""Figure 5 as a picture: mean AP over ODinW-13 by the number of shots."""

import math
from collections.abc import Sequence
from io import BytesIO

from fiber_cli.tables.render import Measured, MeasuredTable


def few_shot_curve(measured: MeasuredTable) -> bytes:
    """A picture (PNG) of a table whose columns are shots: ours, as far as there are any, and the paper's numbers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    columns = measured.table.columns
    places = range(len(columns))
    for row, cells in measured.rows:
        ours = [each.figure.value for each in cells]
        paper = [each.cell.paper for each in cells]
        axes.plot(places, _with_gaps(ours), "o-", label=f"{row.label}, ours{_in_part(cells)}")
        axes.plot(places, _with_gaps(paper), "x", color="black", label=f"{row.label}, the paper's numbers")
    axes.set(title=measured.table.title, ylabel="AP", xticks=places, xticklabels=columns)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    picture = BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    return picture.getvalue()


def _with_gaps(values: Sequence[float | None]) -> list[float]:
    """The values; no point and no line where there is none."""
    return [math.nan if value is None else value for value in values]


def _in_part(cells: Sequence[Measured]) -> str:
    """Of what part of the data the figures are, where one is not of all."""
    parts = dict.fromkeys(each.figure.partial for each in cells if each.figure.partial is not None)
    return f" ({'; '.join(parts)})" if parts else ""
