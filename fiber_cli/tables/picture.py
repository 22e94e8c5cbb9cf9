"""Figure 5 as a picture: mean AP over ODinW-13 by the number of shots."""

from collections.abc import Sequence
from io import BytesIO

from fiber_cli.tables.render import Measured, MeasuredTable


def few_shot_curve(measured: MeasuredTable) -> bytes:
    """A picture (PNG) of a table whose columns are shots: ours, as far as there are any, and the paper's numbers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    columns = measured.table.columns
    for row, cells in measured.rows:
        ours = [each.figure.value for each in cells]
        paper = [each.cell.paper for each in cells]
        places, values = _present(ours)
        axes.plot(places, values, "o-", label=f"{row.label}, ours{_in_part(cells)}")
        places, values = _present(paper)
        axes.plot(places, values, "x", color="black", label=f"{row.label}, the paper's numbers")
    axes.set(title=measured.table.title, ylabel="AP", xticks=range(len(columns)), xticklabels=columns)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    picture = BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    return picture.getvalue()


def _present(values: Sequence[float | None]) -> tuple[list[int], list[float]]:
    """The values that there are, and their places."""
    places = []
    present = []
    for place, value in enumerate(values):
        if value is not None:
            places.append(place)
            present.append(value)
    return places, present


def _in_part(cells: Sequence[Measured]) -> str:
    """Of what part of the data the figures are, where one is not of all."""
    parts = dict.fromkeys(each.figure.partial for each in cells if each.figure.partial is not None)
    return f" ({'; '.join(parts)})" if parts else ""
