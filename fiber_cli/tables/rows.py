"""What a table of the paper is made of: rows of figures, each with the paper's number and where ours comes from."""

from typing import NamedTuple


class Evaluated(NamedTuple):
    """An evaluation, whose results.json has the figure.

    recipe: in whose header its command stands. mode: of retrieval; None: the task has one only. starts_from: the run
    that the recipe begins with, where its header has several; None: that of `# command:`.
    """

    recipe: str
    dataset: str
    split: str
    mode: str | None = None
    starts_from: str | None = None


class Trained(NamedTuple):
    """A training itself, whose summary.json has the figure."""

    recipe: str
    starts_from: str | None = None


class Tuned(NamedTuple):
    """The fine-tunings of `fiber odinw` in a recipe's header, whose tests have the figure. shots: 0 is all data;
    starts_from: as of `Evaluated`."""

    recipe: str
    shots: int
    starts_from: str | None = None


Source = Evaluated | Trained | Tuned


class Cell(NamedTuple):
    """A figure. paper: its number, None where it gives none; metric: the name in the results; sources: what has it, of
    which the first that is there counts and the first is made; server: where the predictions are to be sent, for what
    only a test server can score."""

    column: str
    paper: float | None
    metric: str
    sources: tuple[Source, ...]
    server: str | None = None


class Row(NamedTuple):
    """A row of a table."""

    label: str
    cells: tuple[Cell, ...]


class Table(NamedTuple):
    """name: on the command line. notes: what the reader must know of the paper's numbers."""

    name: str
    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    @property
    def cells(self) -> list[Cell]:
        """Of all rows."""
        return [cell for row in self.rows for cell in row.cells]

    @property
    def columns(self) -> tuple[str, ...]:
        """In the order in which the rows have them."""
        columns: dict[str, None] = {}
        for cell in self.cells:
            columns[cell.column] = None
        return tuple(columns)

    @property
    def heading(self) -> str:
        """Such as "Table 4: retrieval, recall (%)"."""
        kind = "Figure" if self.name.startswith("fig") else "Table"
        return f"{kind} {self.name.removeprefix('fig')}: {self.title}"


def cells(
    sources: tuple[Source, ...], *figures: tuple[str, str, float | None], server: str | None = None
) -> tuple[Cell, ...]:
    """Cells that have their sources in common, each of column, metric and the paper's number."""
    return tuple(Cell(column, paper, metric, sources, server) for column, metric, paper in figures)
