"""The folder of a converted checkpoint: over an earlier conversion alone, and whole or not at all."""

from pathlib import Path

from fiber_cli.checkpoints import directory
from fiber_cli.checkpoints.published.unread import KEPT_FILE
from fiber_cli.checkpoints.run_files import CHECKPOINTS, LATEST, METRICS, RECIPE, SUMMARY
from fiber_cli.errors import UserError
from fiber_cli.outputs import LEDGER, Outputs, exchange, explained

#: What a run leaves in its folder, and a conversion does not.
_FILES_OF_RUNS = (RECIPE, METRICS, SUMMARY)


def check_output(output: Path, outputs: Outputs) -> None:
    """UserError where `output` is no folder for a conversion: it holds a run, files that no conversion wrote, unless
    `outputs` may replace them, or what is read."""
    if output.is_file():
        raise UserError(f"{output}: is a file; name a folder")
    outputs.check(output / LEDGER, own=True)
    if not output.is_dir():
        return
    checkpoints = output / CHECKPOINTS
    made = checkpoints / directory.step_name(0)
    others = [path for path in checkpoints.glob("step-*") if path.name != made.name]
    is_run = bool(others) or any((made / "state").glob("*"))
    if is_run or any((output / name).exists() for name in _FILES_OF_RUNS):
        raise UserError(f"{output}: holds a training run, which is never replaced; name another folder")
    for file in [checkpoints / LATEST, output / KEPT_FILE, *made.rglob("*")]:
        if outputs.is_input(file):
            raise UserError(f"{file}: is read by this command and would be overwritten; name another folder")
    foreign = outputs.foreign(output)
    if foreign is not None and not outputs.force:
        raise UserError(
            f"{output}: is there already, with {foreign.relative_to(output)}, which fiber convert did not write or "
            "which has been changed since; name another folder, or replace the checkpoint in it with --force"
        )


def tokenizer_files(tokenizer: str) -> list[Path]:
    """The files of a tokeniser's folder; none of one from the hub."""
    folder = Path(tokenizer).expanduser()
    return list(folder.rglob("*")) if folder.is_dir() else []


def put_in_place(made: Path, output: Path, outputs: Outputs) -> Path:
    """Move a checkpoint that `directory.save` has written in a folder below `output` to its place there; returns that.
    UserError, with what was there as it was, where that fails."""
    staging = made.parent.parent
    outputs.keep(output, filter(Path.is_file, staging.rglob("*")), staging)
    final = output / made.relative_to(staging)
    with explained(final):
        final.parent.mkdir(exist_ok=True)
        # Without it or beside weights of another conversion the way back goes by its first values.
        (output / KEPT_FILE).unlink(missing_ok=True)
        exchange(made, final, made.with_name("earlier"))
        (made.parent / LATEST).replace(final.parent / LATEST)
        if (staging / KEPT_FILE).is_file():
            (staging / KEPT_FILE).replace(output / KEPT_FILE)
    return final
