"""The checkpoints that ship with the package: trained by their recipes, put in their place, described.

    python -m benchmarks.builtin train --work DIR [--nproc N] [--only STAGE,STAGE]
    python -m benchmarks.builtin calibrate --work DIR [--only STAGE,STAGE]
    python -m benchmarks.builtin card --work DIR [--results FILE]

`train` runs the command of every recipe `recipes/builtin*.yaml` in DIR, each after the one that it starts from, and
puts the best checkpoint of each as float16 into fiber_cli/builtin/. The same command again goes on where it was: what
is complete is not trained again. `calibrate` chooses the thresholds of checkpoints that ship again, as the validation
of their recipes does today, and leaves their weights alone; DIR keeps what it chose. `card` writes
fiber_cli/builtin/MODEL_CARD.md from what the runs say of themselves and from a JSON with figures: {"<checkpoint>":
{"<what>": <number or text>, …}, …, "limits": ["<sentence>", …]}.

A recipe's checkpoint is called by its task, of the two pre-training stages by what they are for; a line `# ships: NAME`
in its header calls it otherwise, `# ships: none` keeps it out of the package.
"""

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.calibration import calibrate, store
from fiber_cli.checkpoints import directory, shipped
from fiber_cli.checkpoints.digests import WEIGHTS_FILE, read_digests
from fiber_cli.checkpoints.export import export
from fiber_cli.checkpoints.run_files import RECIPE, SUMMARY, hardware_of
from fiber_cli.config.resolve import recipe_header, resolve_recipe
from fiber_cli.data.files import read_json
from fiber_cli.distributed.launch import launch
from fiber_cli.errors import EXIT_OK, EXIT_STOPPED, UserError, first_names
from fiber_cli.outputs import Outputs, sha256_of
from fiber_cli.settings import SourceSettings
from fiber_cli.tasks import declared
from fiber_cli.training.resume import FREE_ON_RESUME, differing_settings
from fiber_cli.training.run_folder import has_checkpoint

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes"
RESULTS = ROOT / "benchmarks" / "results" / "builtin.json"
#: Checkpoints of pre-training by what they are for; others are called by their task.
NAMES = {"coarse": "retrieval", "fine": "detection"}
MADE_BY = "python -m benchmarks.builtin"
NOT_RECORDED = "not recorded"
#: The first line of a card, by which it is known that no person's text is replaced.
MARK = f"<!-- Written by `{MADE_BY} card`; change it there. -->"
LIMITS = (
    "They have seen drawn scenes of a few simple shapes and nothing else. Of photographs, or of words that no scene is "
    "described with, they say something all the same, and it means nothing.",
    "They show what the method does at this size; no figure of theirs is one of the paper's.",
)


class Stage(NamedTuple):
    """A recipe and its command. name: of the recipe and of its run; parent: the stage whose run it starts from;
    settings: what the command puts over the recipe; ships: the name of its checkpoint, None for one that stays here."""

    name: str
    recipe: Path
    verb: str
    task: str
    parent: str | None
    nproc: int
    settings: tuple[str, ...]
    ships: str | None


def stages(folder: Path = RECIPES) -> list[Stage]:
    """Of the recipes `builtin*.yaml` in a folder, each behind the one that it starts from. Raises UserError."""
    waiting = {recipe.stem: _stage(recipe) for recipe in sorted(folder.glob("builtin*.yaml"))}
    ordered: dict[str, Stage] = {}
    while waiting:
        free = [stage for stage in waiting.values() if stage.parent is None or stage.parent in ordered]
        if not free:
            raise UserError(f"{folder}: no recipe is there that {first_names(sorted(waiting))} could start from")
        for stage in free:
            ordered[stage.name] = waiting.pop(stage.name)
    names = [stage.ships for stage in ordered.values() if stage.ships is not None]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{folder}: two recipes make {twice[0]}; tell them apart by `# ships: NAME` in their headers")
    return list(ordered.values())


def _stage(recipe: Path) -> Stage:
    """What the header of a recipe says."""
    header = recipe_header(recipe)
    _, verb, task, *words = shlex.split(header["command"])
    options: dict[str, str] = {}
    settings = []
    while words:
        word = words.pop(0)
        if word.startswith("--") and words:
            options[word] = words.pop(0)
        else:
            settings.append(word)
    unknown = options.keys() - {"--recipe", "--init-from", "--nproc"}
    if unknown:
        raise UserError(
            f"{recipe}: `# command:` has {first_names(sorted(unknown))}, which this command does not pass on"
        )
    parent = Path(options["--init-from"]).name if "--init-from" in options else None
    ships = header.get("ships", NAMES.get(task, task))
    nproc = int(options.get("--nproc", 1))
    return Stage(recipe.stem, recipe, verb, task, parent, nproc, tuple(settings), None if ships == "none" else ships)


def train(stage: Stage, work: Path, nproc: int | None = None) -> None:
    """The run of a stage in `work`: begun, continued, or left as it is where it is complete. Raises UserError where it
    is of other settings or of other first weights, SystemExit where the command fails or is stopped."""
    run = work / stage.name
    record = _record(stage, work)
    first = _first_weights(stage, work)
    begun = has_checkpoint(run)
    if begun:
        _check_same(stage, run, record, first)
    if begun and (run / SUMMARY).is_file():
        print(f"{stage.name}: complete", flush=True)
        return
    arguments = [stage.verb, stage.task, "--recipe", str(stage.recipe), "--output", str(run), *stage.settings]
    if begun:
        arguments.append("--resume")
    elif stage.parent is not None:
        arguments += ["--init-from", str(work / stage.parent)]
    earlier = record.get("commits", []) if begun else []
    commits = list(dict.fromkeys([*earlier, commit()]))
    content = {"recipe": sha256_of(stage.recipe), "first_weights": first, "commits": commits}
    Outputs().write(_record_file(stage, work), json.dumps(content, indent=2) + "\n")
    print(f"{stage.name}: fiber {shlex.join(arguments)}", flush=True)
    code = launch(nproc or stage.nproc, arguments, name=stage.name)
    if code == EXIT_STOPPED:
        print("stopped; the same command again goes on from here", flush=True)
    if code != EXIT_OK:
        raise SystemExit(code)


def _record_file(stage: Stage, work: Path) -> Path:
    """What is known of a stage beside its run: the digest of its recipe and of its first weights, and the commits."""
    return work / f"{stage.name}.json"


def _record(stage: Stage, work: Path) -> dict[str, Any]:
    """Nothing for a run that was not begun here."""
    file = _record_file(stage, work)
    content: dict[str, Any] = read_json(file, "the record of a stage") if file.exists() else {}
    return content


def _first_weights(stage: Stage, work: Path) -> str | None:
    """SHA-256 of the weights that a stage starts from; None for random ones."""
    if stage.parent is None:
        return None
    return sha256_of(directory.resolve(work / stage.parent) / WEIGHTS_FILE)


def _check_same(stage: Stage, run: Path, record: Mapping[str, Any], first: str | None) -> None:
    """UserError for a run that the stage as it is now would not make."""
    recipe = resolve_recipe(str(stage.recipe), stage.settings)
    differing = [each for each in differing_settings(recipe, run / RECIPE) if not each.startswith(FREE_ON_RESUME)]
    if record.get("first_weights", first) != first:
        differing.append(f"the weights of {stage.parent}, which it started from")
    if differing:
        raise UserError(f"{run} was made otherwise; move it away, and it is trained again. Different are:", *differing)


def commit() -> str:
    """The commit of the repository, with a word where files differ from it, or that it is not known."""
    try:
        head = _git("rev-parse", "HEAD")
        return f"{head} with changes" if _git("status", "--porcelain", "--untracked-files=no") else head
    except (OSError, subprocess.CalledProcessError):
        return NOT_RECORDED  # a copy without its history


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def ship(stage: Stage, work: Path, folder: Path) -> None:
    """Put the checkpoint of a complete stage into the folder of those that ship."""
    if stage.ships is None:
        return
    exported = export(work / stage.name, folder / stage.ships, half=True)
    print(f"{exported.out}: from {exported.source}", flush=True)
    calibrated = _calibrated(stage, work, exported.digests[WEIGHTS_FILE])
    if calibrated:
        store(exported.out, calibrated["settings"])


def calibrate_again(stage: Stage, work: Path, folder: Path) -> None:
    """Choose the thresholds of a checkpoint that ships again, and keep them in the record of its stage. Raises
    UserError."""
    if stage.ships is None or not declared(stage.task).calibrated:
        return
    checkpoint = folder / stage.ships
    chosen = calibrate(checkpoint, resolve_recipe(str(work / stage.name / RECIPE)))
    weights = read_digests(checkpoint)[WEIGHTS_FILE]
    calibrated = {"weights": weights, "commit": commit(), "settings": chosen.settings, "metrics": chosen.metrics}
    content = _record(stage, work) | {"calibrated": calibrated}
    Outputs().write(_record_file(stage, work), json.dumps(content, indent=2) + "\n", own=True)
    store(checkpoint, chosen.settings)
    print(f"{checkpoint}: {chosen.settings}", flush=True)


def _calibrated(stage: Stage, work: Path, weights: str) -> dict[str, Any]:
    """What `calibrate_again` chose for the weights of this digest; nothing where it did not or they are others."""
    calibrated: dict[str, Any] = _record(stage, work).get("calibrated", {})
    return calibrated if calibrated.get("weights") == weights else {}


def card(made: Sequence[Stage], work: Path, folder: Path, results: Mapping[str, Any]) -> str:
    """The model card of the checkpoints that lie in `folder`, from their runs in `work` and figures. Raises UserError
    for a checkpoint whose run is not there or not complete, and for figures of one that is not in the folder."""
    shipping = [stage for stage in made if stage.ships is not None and (folder / stage.ships).is_dir()]
    unknown = results.keys() - {stage.ships for stage in shipping} - {"limits"}
    if unknown:
        raise UserError(f"figures of {first_names(sorted(unknown))}, which does not lie in {folder}")
    parts = [
        MARK,
        "# The checkpoints that ship with fiber",
        "Small models of the architecture of the README, trained from random weights on fiber's built-in drawn scenes "
        "(`fiber scenes` writes some), for trying every command. `--checkpoint builtin` takes the one that can do what "
        "a command asks, `--checkpoint builtin/<name>` that one. Weights are float16 and compute in float32.",
        f"One command makes all of them, `{MADE_BY} train --work DIR`; `{MADE_BY} card --work DIR` wrote this card.",
        *(_section(stage, work, folder, results.get(stage.ships, {})) for stage in shipping),
        "## Limits",
        "\n".join(f"- {limit}" for limit in (*LIMITS, *results.get("limits", ()))),
    ]
    return "\n\n".join(parts) + "\n"


def _section(stage: Stage, work: Path, folder: Path, figures: Mapping[str, Any]) -> str:
    """What the card says of one checkpoint."""
    assert stage.ships is not None
    run = work / stage.name
    summary = read_json(run / SUMMARY, "the summary of a run, which it has when it is complete")
    record = _record(stage, work)
    recipe = resolve_recipe(str(run / RECIPE))
    digests = read_digests(folder / stage.ships)
    size = sum(path.stat().st_size for path in (folder / stage.ships).rglob("*") if path.is_file())
    data = [_in_words(entry) for entry in recipe.data.train]
    start = "random weights" if stage.parent is None else f"the run of `{stage.parent}`"
    facts = {
        "task": stage.task,
        "parameters": f"{summary['parameters']['total']:,}",
        "size": f"{size / 1e6:.1f} MB",
        "recipe": f"`{stage.recipe.name}`, SHA-256 {record.get('recipe', NOT_RECORDED)}",
        "command": f"`{recipe_header(stage.recipe)['command']}`",
        "starts from": start,
        "data": "; ".join(data),
        "seed": recipe.runtime.seed,
        "trained": f"{summary['steps']:,} steps, {summary['images']:,} samples, {summary['seconds'] / 60:.0f} minutes",
        "hardware": f"{summary['ranks']} x {hardware_of(summary)}, {summary['threads_per_rank']} threads each",
        "versions": f"fiber {summary['fiber']}, torch {summary['torch']}, Python {summary['python']}",
        "commit": ", then ".join(record.get("commits", [NOT_RECORDED])),
        f"SHA-256 of {WEIGHTS_FILE}": digests[WEIGHTS_FILE],
    }
    calibrated = _calibrated(stage, work, digests[WEIGHTS_FILE])
    if calibrated:
        facts["thresholds"] = f"chosen again by `{MADE_BY} calibrate`, commit {calibrated['commit']}"
    tables = [_table("fact", facts), _table("measured", {**_validated(summary, calibrated), **figures})]
    return "\n\n".join([f"## {shipped.BUILTIN}/{stage.ships}", *tables])


def _validated(summary: Mapping[str, Any], calibrated: Mapping[str, Any]) -> dict[str, float]:
    """What the validations of a run say of its best checkpoint, which is the one that ships: all metrics where it is
    the last one, else the metric that chose it; and in their place what the one says that chose its thresholds
    again."""
    best = summary["best"]
    if calibrated:
        return {f"validation: {name}": value for name, value in calibrated["metrics"].items()}
    if best is None or best["step"] == summary["steps"]:
        return {f"validation: {name}": value for name, value in summary["metrics"].items()}
    return {f"validation, at step {best['step']:,} of {summary['steps']:,}: {best['metric']}": best["value"]}


def _in_words(entry: SourceSettings) -> str:
    """An entry of a recipe's data."""
    return f"{entry.kind} ({', '.join(f'{name}={value}' for name, value in entry.arguments().items())})"


def _table(heading: str, rows: Mapping[str, Any]) -> str:
    """Names and values in Markdown."""
    lines = [f"| {heading} | |", "|---|---|"]
    for name, value in rows.items():
        text = f"{value:.1f}" if isinstance(value, float) else str(value)
        lines.append(f"| {_in_cell(name)} | {_in_cell(text)} |")
    return "\n".join(lines)


def _in_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def write_card(text: str, folder: Path) -> Path:
    """The card in its place, over an earlier one alone."""
    file = folder / shipped.CARD
    is_a_card = file.is_file() and file.read_text(encoding="utf-8").startswith(MARK)
    Outputs().write(file, text, own=is_a_card, kept=False)
    return file


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "calibrate", "card"))
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--nproc", type=int, help="processes, where not as many as the recipes' commands say")
    parser.add_argument("--only", help="stages, with commas; what they start from must be there")
    parser.add_argument("--recipes", type=Path, default=RECIPES, help="folder of the recipes")
    parser.add_argument("--into", type=Path, default=shipped.folder(), help="folder of the shipped checkpoints")
    parser.add_argument("--results", type=Path, default=RESULTS, help="JSON with figures, where there is one")
    arguments = parser.parse_args(argv)
    try:
        made = stages(arguments.recipes)
        if arguments.what == "card":
            results = read_json(arguments.results, "figures") if arguments.results.is_file() else {}
            print(write_card(card(made, arguments.work, arguments.into, results), arguments.into))
            return
        only = arguments.only.split(",") if arguments.only else [stage.name for stage in made]
        unknown = set(only) - {stage.name for stage in made}
        if unknown:
            raise UserError(f"--only {first_names(sorted(unknown))}: give of {first_names([s.name for s in made])}")
        for stage in made:
            if stage.name in only and arguments.what == "calibrate":
                calibrate_again(stage, arguments.work, arguments.into)
            elif stage.name in only:
                train(stage, arguments.work, arguments.nproc)
                ship(stage, arguments.work, arguments.into)
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
