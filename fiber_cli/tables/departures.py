"""Where the runs behind a table were made with other settings than their recipes have."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from fiber_cli.checkpoints.run_files import RECIPE
from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.errors import WRONG_CONTENT, first_names
from fiber_cli.parsing import parse_yaml
from fiber_cli.tables.commands import chain, source_runs
from fiber_cli.tables.rows import Source, Table
from fiber_cli.text_files import read_text
from fiber_cli.training.resume import FREE_ON_RESUME, differing_settings

#: Settings that say where something lies.
_PLACES = ("data.root:", "task.answers:", "task.cider_df:")


class Departures:
    """Of the runs below a folder."""

    def __init__(self, runs: Path):
        self.runs = runs
        self._of_run: dict[str, str | None] = {}

    def of(self, table: Table) -> Iterator[str]:
        """A line for each run that a table's figures rest on and that was made otherwise."""
        for name in runs_behind(table):
            line = self.of_run(name)
            if line is not None:
                yield line

    def of_run(self, name: str) -> str | None:
        """What differs in a run of a chain; None where nothing does, or where nothing is known of how it was made."""
        if name not in self._of_run:
            self._of_run[name] = self._compared(name)
        return self._of_run[name]

    def _compared(self, name: str) -> str | None:
        file = self.runs / name / RECIPE
        if not file.is_file():
            return None
        stage = chain(name)[-1]
        recipe = stage.recipe
        try:
            stored = parse_yaml(read_text(file))
            root = stored["data"]["root"]
            as_shipped = resolve_recipe(recipe, [f"data.root={root or 'null'}", *stage.training.settings])
            differing = differing_settings(as_shipped, file)
        except (OSError, yaml.YAMLError, *WRONG_CONTENT) as error:
            return f"{file}: how the run was made cannot be read ({str(error).splitlines()[0]})"
        keys = []
        for words in differing:
            if not words.startswith((*FREE_ON_RESUME, *_PLACES)):
                keys.append(words.partition(":")[0])
        if not keys:
            return None
        return f"{self.runs / name} was made with other settings than the recipe {recipe} has: {first_names(keys)}"


def runs_behind(table: Table) -> list[str]:
    """The names of the runs that a table's figures rest on, those first that others start from."""
    names: dict[str, None] = {}
    for cell in table.cells:
        for source in cell.sources:
            names.update(dict.fromkeys(_runs_of(source)))
    return list(names)


def _runs_of(source: Source) -> list[str]:
    names: list[str] = []
    for run in source_runs(source):
        names += [stage.run for stage in chain(run)]
    return names
