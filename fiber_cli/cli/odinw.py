"""`fiber odinw`: the 13 sets of ODinW, fine-tuned one after another, with all of their data and with few shots."""

import json
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from fiber_cli.characters import one_line
from fiber_cli.cli.options import Force, Nproc, Overrides, checkpoint_option, whole_numbers
from fiber_cli.cli.runs import named_to_start
from fiber_cli.errors import EXIT_OK, EXIT_STOPPED, UserError, first_names
from fiber_cli.parsing import parse_json
from fiber_cli.printing import say, show
from fiber_cli.regular_files import read_regular
from fiber_cli.text_files import dump_json

if TYPE_CHECKING:
    from fiber_cli.data.sources.coco import CocoSettings
    from fiber_cli.evaluation.odinw13 import OdinwArchive
    from fiber_cli.outputs import Outputs

#: What stands for all of a set's data among the shots.
ALL_DATA = 0
#: Recipes of all data and of few shots.
FULL_RECIPE, FEW_SHOT_RECIPE = "odinw", "odinw_few_shot"
#: An override that gives it.
_MAX_PIXELS = "data.max_pixels="
SETTINGS_FILE, RESULTS_FILE = "settings.json", "odinw.json"


class Tuning(NamedTuple):
    """One fine-tuning. shots: `ALL_DATA` or few; seed: of the published draw, None of all data. train, valid, test: the
    entries of a recipe that it learns from, chooses its best weights by, and is measured on."""

    set_name: str
    shots: int
    seed: int | None
    train: "CocoSettings"
    valid: "CocoSettings"
    test: "CocoSettings"

    @property
    def name(self) -> str:
        """Its folder below the output."""
        drawn = "full" if self.seed is None else f"shot{self.shots}-seed{self.seed}"
        return f"{self.set_name}/{drawn}"


def odinw(
    overrides: Overrides = None,
    *,
    root: Annotated[Path, typer.Option(help="Folder of the archive, or the recipes' data.root.")],
    init_from: Annotated[
        Path, checkpoint_option("Checkpoint that every fine-tuning starts from; builtin: a shipped one.")
    ],
    shots: Annotated[str, typer.Option(help="0 = all data; else the published draws of so many.")] = "0,1,3,5,10",
    seeds: Annotated[str, typer.Option(help="Seeds of the published draws.")] = "3,30,300",
    sets: Annotated[str | None, typer.Option(help="Names of sets, with commas.  [default: all that are there]")] = None,
    published_prompts: Annotated[
        bool, typer.Option("--published-prompts", help="The published prompts instead of the names alone.")
    ] = False,
    output: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("runs/odinw13"),
    nproc: Nproc = 1,
    force: Force = False,
    max_pixels: Annotated[int | None, typer.Option(min=1, help="Images with more pixels are left out.")] = None,
) -> None:
    """Fine-tune on each set of ODinW-13, all data and few shots; the AP on `test` of the best on `valid`, and means.

    Full data goes by the recipe odinw, few shots by odinw_few_shot. The same command again goes on where it was.
    """
    from fiber_cli.checkpoints.directory import resolve
    from fiber_cli.distributed.folder_lock import locked
    from fiber_cli.evaluation.odinw13 import completeness
    from fiber_cli.evaluation.odinw_table import OdinwAp, odinw_summary, odinw_table

    if max_pixels is not None:
        overrides = [*(overrides or []), f"{_MAX_PIXELS}{max_pixels}"]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("fiber odinw starts its processes itself: call it once, with --nproc")
    archive = _archive(root, sets)
    tunings = list(
        _tunings(archive, _shot_numbers(shots), whole_numbers(seeds, "--seeds"), published_prompts=published_prompts)
    )
    _refuse_missing_files(tunings)
    weights = resolve(named_to_start("detection", init_from))
    outputs = _outputs(tunings, weights, output, force=force)
    incomplete = completeness(archive.missing)
    if incomplete is not None:
        say(f"odinw: {incomplete}")
    settings = {
        "init_from": str(weights.resolve()),
        "prompts": "published" if published_prompts else "names",
        "overrides": overrides or [],
    }
    results = []
    with locked(output):
        _keep_settings(output / SETTINGS_FILE, settings, outputs)
        for number, tuning in enumerate(tunings, 1):
            say(f"odinw: {number} of {len(tunings)}, {tuning.name}")
            ap = _tune_and_measure(tuning, output / tuning.name, weights, overrides or [], nproc, outputs)
            results.append(OdinwAp(tuning.set_name, tuning.shots, tuning.seed, ap))
        summary = {**settings, "missing_sets": archive.missing, **odinw_summary(results)}
        outputs.write(output / RESULTS_FILE, json.dumps(summary, indent=2) + "\n")
    show(odinw_table(results))
    show(one_line(f"prompts: {settings['prompts']}; {output / RESULTS_FILE}"))


def _archive(root: Path, sets: str | None) -> "OdinwArchive":
    """The archive with the sets that are asked for."""
    from fiber_cli.evaluation.odinw13 import SETS, find_archive

    archive = find_archive(root.absolute(), ("train", "valid", "test"))
    if sets is None:
        return archive
    names = [name.strip() for name in sets.split(",")]
    known = [each.name for each in SETS]
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"--sets {name}: give of {', '.join(known)}")
        if name in archive.missing:
            raise UserError(f"{archive.folder}: {name} is not there, with annotations of train, valid and test")
    chosen = [each for each in archive.present if each.name in names]
    left_out = [name for name in known if name not in names]
    return archive._replace(present=chosen, missing=left_out)


def _shot_numbers(text: str) -> tuple[int, ...]:
    """The value of --shots."""
    from fiber_cli.evaluation.odinw13 import SHOTS

    valid = {str(number): number for number in (ALL_DATA, *SHOTS)}
    numbers = []
    for word in text.split(","):
        if word.strip() not in valid:
            raise typer.BadParameter(f"--shots {text}: give of {', '.join(valid)}; 0 is all data")
        numbers.append(valid[word.strip()])
    return tuple(dict.fromkeys(numbers))


def _tunings(
    archive: "OdinwArchive", shots: Sequence[int], seeds: Sequence[int], *, published_prompts: bool
) -> Iterator[Tuning]:
    """Shots by shots, so that a mean of all sets is there as early as can be."""
    for number in shots:
        for seed in (None,) if number == ALL_DATA else seeds:
            for each in archive.present:
                if seed is None:
                    train = archive.source(each, "train", published_prompts=published_prompts)
                else:
                    train = archive.few_shot_source(each, number, seed, published_prompts=published_prompts)
                valid = archive.source(each, "valid", published_prompts=published_prompts)
                test = archive.source(each, "test", published_prompts=published_prompts)
                yield Tuning(each.name, number, seed, train, valid, test)


def _refuse_missing_files(tunings: Sequence[Tuning]) -> None:
    """Before days of training, not after some of them."""
    missing = [tuning.train.json for tuning in tunings if not Path(tuning.train.json).is_file()]
    if missing:
        raise UserError(f"not there: {first_names(missing)}; fetch them, or leave them out by --shots, --seeds, --sets")


def _outputs(tunings: Sequence[Tuning], weights: Path, output: Path, *, force: bool) -> "Outputs":
    """What may be replaced: nothing that is read. UserError, before days of training, for a file that may not be."""
    from fiber_cli.data.source_files import source_files
    from fiber_cli.outputs import Outputs

    sources: list[CocoSettings] = []
    for tuning in tunings:
        sources += tuning.train, tuning.valid, tuning.test
    outputs = Outputs(force=force, inputs=chain(source_files(sources), weights.rglob("*")))
    outputs.check(output / RESULTS_FILE)
    return outputs


def _keep_settings(file: Path, settings: dict[str, Any], outputs: "Outputs") -> None:
    """What all runs of the folder share; UserError where those in it were made otherwise."""
    from fiber_cli.data.files import read_json

    if not os.path.lexists(file):
        outputs.write(file, json.dumps(settings, indent=2) + "\n")
        return
    earlier = read_json(file, "the settings of the runs beside it")
    if not isinstance(earlier, dict):
        raise UserError(f"{file} does not hold the settings of `fiber odinw`; give another --output")
    differing = []
    for name, value in settings.items():
        if earlier.get(name) != value:
            differing.append(f"{name}: {earlier.get(name)!r} there, {value!r} now")
    if differing:
        raise UserError(f"{file.parent} holds runs with other settings ({'; '.join(differing)}): give another --output")


def _tune_and_measure(
    tuning: Tuning, folder: Path, weights: Path, overrides: Sequence[str], nproc: int, outputs: "Outputs"
) -> float:
    """The AP on `test`, from what is finished in the folder; the rest is done."""
    results = folder / "test" / "results.json"
    metrics = _metrics(results)
    if metrics is None:
        if not (folder / "summary.json").is_file():
            _launch(nproc, _training_arguments(tuning, folder, weights, overrides))
        _launch(nproc, _test_arguments(tuning, folder, outputs) + _max_pixels(overrides))
        metrics = _metrics(results)
    if metrics is None or "detection/ap" not in metrics:
        raise UserError(f"{tuning.test.json}: no object of it could be scored, see {results}")
    return metrics["detection/ap"]


def _metrics(results: Path) -> dict[str, float] | None:
    """The metrics of a results.json; None where it is not there, or was cut by a kill. Raises UserError for one of
    another form."""
    try:
        content = parse_json(read_regular(results))
    except FileNotFoundError:
        return None
    except (OSError, RecursionError) as error:
        raise UserError(f"{results} cannot be read ({error}); delete it, and it is measured again") from error
    except ValueError:
        return None
    metrics = content.get("metrics") if isinstance(content, dict) else None
    if not isinstance(metrics, dict) or not isinstance(metrics.get("detection/ap", 0.0), int | float):
        raise UserError(f"{results} holds no results of `fiber eval`; delete it, and they are measured again")
    return metrics


def _training_arguments(tuning: Tuning, folder: Path, weights: Path, overrides: Sequence[str]) -> list[str]:
    """`fiber finetune` of a tuning, or its continuation."""
    from fiber_cli.training.run_folder import is_new

    start = ["--init-from", str(weights)] if is_new(folder) else ["--resume"]
    recipe = FULL_RECIPE if tuning.shots == ALL_DATA else FEW_SHOT_RECIPE
    data = [f"data.train=[{_entry(tuning.train)}]", f"data.val=[{_entry(tuning.valid)}]"]
    return ["finetune", "detection", "--recipe", recipe, "--output", str(folder), *start, *data, *overrides]


def _entry(source: "CocoSettings") -> str:
    """A source as the command line has it: JSON is YAML."""
    return dump_json({"kind": source.kind, **source.arguments()})


def _test_arguments(tuning: Tuning, folder: Path, outputs: "Outputs") -> list[str]:
    """`fiber eval` of the best weights on the set's `test`."""
    test = tuning.test
    sets = folder / "test.yaml"
    entry = {"name": test.name, "json": test.json, "images": test.images, "prompts": test.prompts}
    outputs.write(sets, dump_json([entry], indent=2) + "\n")
    checkpoints = folder / "checkpoints"
    pointer = checkpoints / "best"
    if not os.path.lexists(pointer):
        pointer = checkpoints / "latest"
    may_replace = ["--force"] if outputs.force else []
    return ["eval", str(sets), "--checkpoint", str(pointer), "--output", str(folder / "test"), *may_replace]


def _max_pixels(overrides: Sequence[str]) -> list[str]:
    """The limit of the pictures' pixels in training, as an option of `fiber eval`."""
    limits = [setting.removeprefix(_MAX_PIXELS) for setting in overrides if setting.startswith(_MAX_PIXELS)]
    return ["--max-pixels", limits[-1]] if limits else []


def _launch(nproc: int, arguments: list[str]) -> None:
    """A command of the program in its own processes; what it leaves is free for the next. Ends where it fails."""
    from fiber_cli.distributed.launch import launch

    # The launcher's last line says what failed, and where.
    code = launch(nproc, arguments, name=f"odinw, at `fiber {' '.join(arguments)}`")
    if code == EXIT_STOPPED:
        say("odinw: stopped; the same command again goes on from here")
    if code != EXIT_OK:
        raise typer.Exit(code)
