"""Writing a checkpoint, whole or not at all, in the way of training or beside it."""

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from fiber_cli.checkpoints.digests import digests_of, files_of, share, write_digests
from fiber_cli.checkpoints.directory import step_name
from fiber_cli.checkpoints.removing import remove_tree
from fiber_cli.checkpoints.run_files import CHECKPOINTS
from fiber_cli.checkpoints.weights import float32
from fiber_cli.checkpoints.writing import SavedTokenizer, publish, write_model
from fiber_cli.distributed import collectives
from fiber_cli.distributed.agreement import reason_of
from fiber_cli.errors import EXIT_FAILED, SharedError, UserError
from fiber_cli.outputs import sync, write_problem

#: Writes this rank's files into the folder of a checkpoint. Raises OSError.
Write = Callable[[Path], object]


class NotWritten(SharedError):
    """A checkpoint that could not be written, on any rank; problem: why, in words."""

    def __init__(self, step: int, folder: Path, problem: str):
        message = (
            f"checkpoint of step {step} could not be written: {problem}; then continue with --resume. Earlier "
            f"checkpoints in {folder} are untouched"
        )
        super().__init__(message, EXIT_FAILED, is_told_here=collectives.is_main())
        self.problem = problem


class Saving:
    """`run_dir`/checkpoints/step-NNNNNN while it is written, under a temporary name; `latest` moves to it at last.

    Made by every rank, which makes the folder; then `start` on every rank, then `advance` until it is true, or
    `finish`. A failed write on any rank removes what was written and raises NotWritten on all; earlier checkpoints stay
    as they are.
    """

    def __init__(self, run_dir: Path, step: int):
        folder = Path(run_dir) / CHECKPOINTS
        self.step = step
        self.final = folder / step_name(step)
        self.temporary = folder / f".{self.final.name}.tmp"
        self._threads: ThreadPoolExecutor | None = None
        self._work: Future[dict[str, str] | None] = Future()
        self._work.set_result(None)
        self._is_written = False
        with self.failing_together():
            if collectives.is_main():
                remove_tree(self.temporary)
                (self.temporary / "state").mkdir(parents=True)

    def start(self, write: Write, *, beside: bool) -> None:
        """Have this rank's files written by `write`. beside: in a thread; `write` must then be without collectives and
        have copies of its own of what training changes."""
        if beside:
            self._threads = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._begin(lambda: self._written(write))

    def _begin(self, work: Callable[[], dict[str, str] | None]) -> None:
        if self._threads is not None:
            self._work = self._threads.submit(work)
            return
        self._work = Future()
        try:
            self._work.set_result(work())
        except Exception as error:  # raised where all ranks meet
            self._work.set_exception(error)

    def _written(self, write: Write) -> None:
        write(self.temporary)

    def _digested(self) -> dict[str, str]:
        """The digests of this rank's share of the files, which are then on the disk."""
        names = share(files_of(self.temporary, state=True))
        for name in names:
            sync(self.temporary / name)
        return digests_of(self.temporary, names)

    def advance(self) -> bool:
        """Whether the checkpoint is there under its name; what can be done for it without waiting is done. A
        collective."""
        if collectives.any_rank(not self._work.done()):
            return False
        digests = None
        with self.failing_together():
            digests = self._work.result()
        if not self._is_written:
            self._is_written = True
            self._begin(self._digested)
            return False
        of_ranks = collectives.gather_objects(digests)
        with self.failing_together():
            if collectives.is_main():
                merged: dict[str, str] = {}
                for of_rank in of_ranks:
                    merged |= of_rank
                write_digests(self.temporary, merged)
                publish(self.temporary, self.final)
        self._end_threads()
        return True

    def finish(self) -> Path:
        """Wait until it is there. A collective."""
        self.wait()
        while not self.advance():
            self.wait()
        return self.final

    def wait(self) -> None:
        """Until this rank's thread has nothing to do."""
        self._work.exception()

    def abandon(self) -> None:
        """Leave nothing of it. Not a collective: each rank its own share."""
        self.wait()
        self._end_threads()
        shutil.rmtree(self.temporary, ignore_errors=True)

    def _end_threads(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """A failed write inside, on any rank, removes the temporary folder and becomes NotWritten on every rank."""
        problem = None
        try:
            yield
        except UserError as error:
            problem = str(error)
        except Exception as error:  # libraries have kinds of their own for a full disk
            if write_problem(error) is None:
                raise
            problem = reason_of(error, self.temporary)
        problems = [reason for reason in collectives.gather_objects(problem) if reason]
        if not problems:
            return
        self.abandon()
        collectives.gather_objects(None)
        shutil.rmtree(self.temporary, ignore_errors=True)
        raise NotWritten(self.step, self.temporary.parent, problems[0])


def save(
    run_dir: Path,
    step: int,
    *,
    config: dict[str, Any],
    weights: Mapping[str, Tensor],
    tokenizer: SavedTokenizer | None,
    words: Collection[str] | None = None,
    write_state: Write | None = None,
) -> Path:
    """Write `run_dir`/checkpoints/step-NNNNNN and move `latest` to it, see `Saving`. Every rank calls this.

    Rank 0 writes `config` (see `checkpoints.config`), `weights`, `tokenizer` and `words`; `write_state` runs on every
    rank with the state/ folder, without collectives.
    """

    def write(folder: Path) -> None:
        if collectives.is_main():
            write_model(folder, config, float32(weights), tokenizer, words)
        if write_state is not None:
            write_state(folder / "state")

    saving = Saving(run_dir, step)
    saving.start(write, beside=False)
    return saving.finish()
