"""metrics.jsonl as records, and as a picture."""

from pathlib import Path
from typing import Any

from fiber_cli.parsing import parse_json

Record = dict[str, Any]


def read_metrics(file: Path) -> list[Record]:
    """The records of a metrics.jsonl; a last line cut by a kill is left out. Empty where there is no file."""
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")
    # What a kill cut has no newline after it, so it is the last piece; a whole file ends in an empty one.
    return [parse_json(line) for line in lines[:-1]]


def draw_curves(records: list[Record], file: Path) -> None:
    """A picture of losses, validation metrics and learning rate over the steps."""
    from matplotlib.figure import Figure

    panels = _panels(records)
    if not panels:
        return
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
    figure.savefig(file, dpi=120)


def _panels(records: list[Record]) -> dict[str, list[str]]:
    """Title → the numbers shown below it, of those that some record has."""
    names: dict[str, None] = {}
    for record in records:
        names.update(dict.fromkeys(record))
    panels: dict[str, list[str]] = {"losses": [], "validation (%)": [], "learning rate": []}
    for name in names:
        if name.endswith("loss"):
            panels["losses"].append(name)
        elif "/" in name:
            panels["validation (%)"].append(name)
        elif name == "lr":
            panels["learning rate"].append(name)
    return {title: drawn for title, drawn in panels.items() if drawn}
