"""The records of a run as a picture."""

from io import BytesIO

from fiber_cli.training.records import Record

#: Ends the names of what validation measures in other units.
_NO_SHARES = ("/threshold", "_words")


def curves(records: list[Record]) -> bytes | None:
    """A picture (PNG) of losses, validation metrics and learning rate over the steps; None where there is nothing to
    show."""
    from matplotlib.figure import Figure

    panels = _panels(records)
    if not panels:
        return None
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, names) in zip(row, panels.items(), strict=True):
        for name in names:
            steps = []
            values = []
            for record in records:
                if record.get(name) is not None:
                    steps.append(record["step"])
                    values.append(record[name])
            if values:
                axes.plot(steps, values, label=name)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    picture = BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    return picture.getvalue()


def _panels(records: list[Record]) -> dict[str, list[str]]:
    """Title → the numbers shown below it, of those that some record has."""
    names: dict[str, None] = {}
    for record in records:
        names.update(dict.fromkeys(record))
    panels: dict[str, list[str]] = {"losses": [], "validation (%)": [], "learning rate": []}
    for name in names:
        if name.endswith("loss"):
            panels["losses"].append(name)
        elif "/" in name and not name.endswith(_NO_SHARES):
            panels["validation (%)"].append(name)
        elif name == "lr":
            panels["learning rate"].append(name)
    return {title: drawn for title, drawn in panels.items() if drawn}
