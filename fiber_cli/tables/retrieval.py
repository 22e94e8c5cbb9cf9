"""Table 4 of one data set by named checkpoints: all ways of retrieval, on photographs of one's own too."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fiber_cli.checkpoints.directory import resolve
from fiber_cli.data.files import read_json
from fiber_cli.distributed.launch import launch
from fiber_cli.errors import EXIT_OK, UserError
from fiber_cli.evaluation.names import SCENES
from fiber_cli.tables.paper import IN_WORDS, RECALLS, RETRIEVAL, WAYS, recall_column
from fiber_cli.tables.results import Figure, Result, Results, measured_figure
from fiber_cli.tables.rows import Cell, Row, Table

#: The splits that a table is of, the first that a data set has.
_SPLITS = ("test", "val")
_PREFIX = "dataset_"
#: How many of the dual encoder's best are re-ranked.
TOP_K = ",".join(way.removeprefix("rerank-") for way in WAYS if way.startswith("rerank-"))


class Retrieval(NamedTuple):
    """Whose figures, on what. dataset: a name that `fiber eval` knows, or a Karpathy JSON; root: its folder, or that of
    the recipes' data; checkpoint, itm_checkpoint: the dual encoder, and what scores pairs where it is another."""

    dataset: str
    split: str
    root: Path | None
    checkpoint: Path
    itm_checkpoint: Path | None = None

    @property
    def name(self) -> str:
        """The data set's, as results have it."""
        return Path(self.dataset).stem.removeprefix(_PREFIX)


def dataset_in(folder: Path) -> str | None:
    """The name of the one data set of captions whose folder this is; None where it is none's."""
    files = sorted(folder.glob(f"{_PREFIX}*.json"))
    return files[0].stem.removeprefix(_PREFIX) if len(files) == 1 else None


def karpathy_file(dataset: str, root: Path | None) -> Path:
    """Where a data set's captions lie. Raises UserError where they do not."""
    if dataset.endswith(".json"):
        return Path(dataset)
    folder = root or Path()
    name = f"{_PREFIX}{dataset}.json"
    for file in (folder / name, folder / dataset / name):
        if file.is_file():
            return file
    raise UserError(f"{folder / name}: no such file; --data names its folder, or the one with {dataset}/{name}")


def split_of(dataset: str, root: Path | None) -> str:
    """The split that the table is of: test, or val where the data have no test. Raises UserError."""
    if dataset == SCENES:
        return "val"
    file = karpathy_file(dataset, root)
    content = read_json(str(file), "a JSON in Karpathy's form")
    try:
        splits = {image["split"] for image in content["images"]}
    except (LookupError, TypeError) as error:
        raise UserError(f"{file}: not in Karpathy's form, images with a split and sentences") from error
    for split in _SPLITS:
        if split in splits:
            return split
    raise UserError(f"{file}: has neither a test nor a val split, but {', '.join(sorted(map(str, splits)))}")


class RetrievalTable:
    """The table and its figures, as far as evaluations with these checkpoints are finished."""

    def __init__(self, retrieval: Retrieval, results: Results):
        self.retrieval = retrieval
        self.results = results
        self.checkpoint = resolve(retrieval.checkpoint)
        named = retrieval.itm_checkpoint
        self.itm_checkpoint = None if named is None else resolve(named)
        paper = RETRIEVAL.get(retrieval.name, {}) if retrieval.split == "test" else {}
        rows = []
        for way, label in WAYS.items():
            numbers: Sequence[float | None] = paper.get(way) or [None] * len(RECALLS)
            cells = []
            for recall, number in zip(RECALLS, numbers, strict=True):
                cells.append(Cell(recall_column(recall), number, f"{way}/{recall}", ()))
            rows.append(Row(label, tuple(cells)))
        title = f"retrieval on {IN_WORDS.get(retrieval.name, retrieval.name)} {retrieval.split}, recall (%)"
        self.table = Table("4", title, tuple(rows), tuple(self._notes(bool(paper))))

    def _notes(self, is_of_paper: bool) -> list[str]:
        models = f"by {self.checkpoint}"
        if self.itm_checkpoint is not None:
            models += f", pairs scored by {self.itm_checkpoint}"
        notes = [models]
        if not is_of_paper:
            notes.append("The paper has no numbers of this data set and split.")
        return notes

    def figure(self, cell: Cell) -> Figure:
        """Ours."""
        for mode in ("itc+itm", "rerank"):
            result = self._result(mode)
            if result is not None and cell.metric in result.content["metrics"]:
                return measured_figure(result, cell.metric)
        return Figure()

    def _result(self, mode: str) -> Result | None:
        return self.results.find(self.retrieval.name, self.retrieval.split, mode, self._fits)

    def _fits(self, result: Result) -> bool:
        is_same = result.checkpoint.resolve() == self.checkpoint.resolve()
        itm = result.itm_checkpoint
        if itm is None or self.itm_checkpoint is None:
            return is_same and itm is None and self.itm_checkpoint is None
        return is_same and itm.resolve() == self.itm_checkpoint.resolve()

    def is_made(self, mode: str) -> bool:
        """Whether an evaluation in a mode has all its rows."""
        for cell in self.table.cells:
            is_of_mode = cell.metric.startswith("rerank-") == (mode == "rerank")
            if is_of_mode and self.figure(cell).value is None:
                return False
        return True

    def commands(self) -> list[list[str]]:
        """What is still to be run: fusion over all pairs with its sums, and re-ranking."""
        retrieval = self.retrieval
        models = ["--checkpoint", str(retrieval.checkpoint)]
        if retrieval.itm_checkpoint is not None:
            models += ["--itm-checkpoint", str(retrieval.itm_checkpoint)]
        where = ["--split", retrieval.split]
        is_found_by_name = retrieval.dataset != SCENES and not retrieval.dataset.endswith(".json")
        if retrieval.root is not None and is_found_by_name:
            where += ["--root", str(retrieval.root)]
        commands = []
        if not self.is_made("itc+itm"):
            commands.append(["eval", retrieval.dataset, "--mode", "itc+itm", *where, *models])
        if not self.is_made("rerank"):
            commands.append(["rerank", retrieval.dataset, "--top-k", TOP_K, *where, *models])
        return commands

    def make(self, nproc: int, extra: dict[str, list[str]]) -> int:
        """Run what is missing; the exit code of the first that fails."""
        for command in self.commands():
            words = [*command, *extra.get(command[0], ())]
            code = launch(nproc, words, name=f"table, at `fiber {' '.join(words)}`", aside=True)
            if code != EXIT_OK:
                return code
        self.results.read()
        return EXIT_OK
