"""Making what a table lacks: the commands of the recipes' headers, one after another, each where the last call of it
left off."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from fiber_cli.checkpoints.config import CONFIG_FILE
from fiber_cli.checkpoints.run_files import EVALUATIONS
from fiber_cli.distributed.launch import launch
from fiber_cli.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_STOPPED, UserError
from fiber_cli.printing import say
from fiber_cli.tables.commands import HeaderCommand
from fiber_cli.tables.plan import Need, Planner, StageNeed
from fiber_cli.tables.results import run_state
from fiber_cli.tables.rows import Table
from fiber_cli.training.run_folder import is_new

#: Codes of commands that were asked to end: by SIGHUP and SIGTERM, the last two.
_ASKED_TO_END = (EXIT_STOPPED, EXIT_INTERRUPTED, 129, 143)


class Stopped(Exception):
    """A command was stopped from outside, with this exit code."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


class Maker:
    """Makes what is missing. nproc: processes of every training and evaluation; extra: command → options that are put
    behind those of the header."""

    def __init__(self, planner: Planner, nproc: int, extra: dict[str, list[str]]):
        self.planner = planner
        self.nproc = nproc
        self.extra = extra
        #: Commands that failed, and what else was wrong, in words.
        self.failed: list[str] = []
        self._tried: set[tuple[str, ...]] = set()

    def make(self, tables: Sequence[Table]) -> int:
        """Everything that the tables lack and that can be made; the exit code. What fails is told in the end, and what
        does not need it is made all the same."""
        try:
            for table in tables:
                for row in table.rows:
                    # Each need is looked at when its turn comes: an earlier one may have made it.
                    for need in self.planner.needs(row):
                        self._make_or_tell(need, f"{table.name}, {row.label.strip()}")
        except Stopped as stop:
            say("table: stopped; the same command again goes on from here")
            return stop.code
        for words in self.failed:
            say(f"table: failed: {words}")
        return EXIT_FAILED if self.failed else EXIT_OK

    def _make_or_tell(self, need: Need, place: str) -> None:
        """A folder that is no run's, or a file that may not be written, ends what needs it alone."""
        try:
            self._make(need, place)
        except UserError as error:
            self.failed.append(str(error))

    def _make(self, need: Need, place: str) -> None:
        if need.state in ("there", "to send"):
            return
        if need.state == "missing":
            say(f"table {place}, {', '.join(need.columns)}: left, {'; '.join(need.missing)}")
            return
        for stage in need.unfinished:
            if not self._train(stage):
                return
        if need.command is not None:
            self._run(self.planner.words(need.command), self._options(need.command))
        self.planner.results.read()

    def _train(self, need: StageNeed) -> bool:
        """Whether a training is finished, from where it stands."""
        folder = self.planner.runs / need.stage.run
        if run_state(folder) == "finished":
            return True
        for prepared in need.unprepared:
            if not self._run(self.planner.preparation_words(prepared), ()):
                return False
        return self._run(self._start(need, folder), ())

    def _start(self, need: StageNeed, folder: Path) -> list[str]:
        """The arguments of a training, or of its continuation. Raises UserError for a folder that holds no run."""
        words = self.planner.training_words(need)
        if not is_new(folder):
            if "--init-from" in words:
                place = words.index("--init-from")
                del words[place : place + 2]
            words.append("--resume")
        return words

    def _options(self, command: HeaderCommand) -> list[str]:
        """What an evaluation, or `fiber odinw`, takes besides its arguments."""
        runs = self.planner.runs
        if command.verb == "odinw":
            return ["--nproc", str(self.nproc)]
        measured = command.run("--checkpoint")
        if measured is None or not (runs / measured / CONFIG_FILE).is_file():
            return []  # into the run
        names = [command.verb, command.dataset, command.option("--split"), measured, command.run("--itm-checkpoint")]
        return ["--output", str(runs / EVALUATIONS / "-".join(name for name in names if name is not None))]

    def _run(self, arguments: Sequence[str], options: Sequence[str]) -> bool:
        """Whether a command ends well; one that has failed is not tried again by this call. Raises Stopped."""
        verb = arguments[0]
        words = [*arguments, *options, *self.extra.get(verb, ())]
        key = tuple(words)
        if key in self._tried:
            return False
        self._tried.add(key)
        is_alone = verb in ("vqa-answers", "cider-df", "odinw")
        written = shlex.join(["fiber", *words])
        say(f"table: {written}")
        # Its tables go where progress goes: standard output has the one that was asked for.
        asked: set[int] = set()
        nproc = 1 if is_alone else self.nproc
        code = launch(nproc, words, name=f"table, at `{written}`", asked=asked, aside=True)
        if asked or code in _ASKED_TO_END:
            # Also where the command was at its end.
            raise Stopped(code or EXIT_STOPPED)
        if code != EXIT_OK:
            self.failed.append(written)
        return code == EXIT_OK
