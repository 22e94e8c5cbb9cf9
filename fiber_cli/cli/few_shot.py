"""`fiber few-shot`: detection sets of a list, fine-tuned one after another, with all of their data and with few shots;
and what `fiber odinw` shares with it."""

import json
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from fiber_cli.characters import one_line
from fiber_cli.checkpoints.run_files import BEST, CHECKPOINTS, LATEST, RESULTS, SUMMARY
from fiber_cli.cli.options import (
    DeviceOfTraining,
    Force,
    Nproc,
    Overrides,
    PrecisionOfBoth,
    Tf32OfBoth,
    checkpoint_option,
    placement_words,
    whole_numbers,
)
from fiber_cli.cli.processes import refuse_ranks, run_command, train_on
from fiber_cli.cli.runs import named_to_start
from fiber_cli.errors import UserError, first_names
from fiber_cli.parsing import parse_json
from fiber_cli.printing import say, show
from fiber_cli.regular_files import read_regular
from fiber_cli.text_files import dump_json

if TYPE_CHECKING:
    from fiber_cli.data.sources.coco import CocoSettings
    from fiber_cli.evaluation.few_shot import Tuning
    from fiber_cli.evaluation.odinw_table import OdinwAp
    from fiber_cli.outputs import Outputs

#: Recipes of all data and of few shots.
FULL_RECIPE, FEW_SHOT_RECIPE = "odinw", "odinw_few_shot"
#: An override that gives it.
_MAX_PIXELS = "data.max_pixels="
SETTINGS_FILE, CURVE_FILE = "settings.json", "curve.png"

InitFrom = Annotated[
    str,
    checkpoint_option(
        "Checkpoint that every fine-tuning starts from, org/name of the hub too; builtin: a shipped one."
    ),
]
Seeds = Annotated[str, typer.Option(help="Seeds of the draws.")]
FullRecipe = Annotated[str, typer.Option(help="Recipe of all data.")]
FewShotRecipe = Annotated[str, typer.Option("--recipe", help="Recipe of few shots.")]
FewShotOutput = Annotated[Path, typer.Option(help="Folder of all runs.")]
ImagePixels = Annotated[int | None, typer.Option(min=1, help="Images with more pixels are left out.")]


class Curve(NamedTuple):
    """How all runs of a command are made. command: its name; output: their folder; results: the name of the file of all
    APs in it; init_from: what every run starts from; full_recipe, recipe: of all data and of few shots; overrides: over
    both; placement: options of all trainings and evaluations; settings: what results.json says of them besides."""

    command: str
    output: Path
    results: str
    init_from: str
    full_recipe: str
    recipe: str
    overrides: tuple[str, ...]
    placement: tuple[str, ...]
    nproc: int
    force: bool
    settings: dict[str, Any]


def few_shot(
    sets: Annotated[
        Path, typer.Argument(metavar="SETS", help="YAML list of {name, json, images, train, valid}, see the pages.")
    ],
    overrides: Overrides = None,
    *,
    init_from: InitFrom,
    shots: Annotated[str, typer.Option(help="0 = all data; else so many images of each category.")] = "0,1,3,5,10",
    seeds: Seeds = "3,30,300",
    recipe: FewShotRecipe = FEW_SHOT_RECIPE,
    full_recipe: FullRecipe = FULL_RECIPE,
    output: FewShotOutput = Path("runs/few_shot"),
    nproc: Nproc = 1,
    force: Force = False,
    max_pixels: ImagePixels = None,
    precision: PrecisionOfBoth = None,
    device: DeviceOfTraining = None,
    tf32: Tf32OfBoth = None,
) -> None:
    """Fine-tune on each set of a list, all data and few shots; the AP on its test of the best on `valid`, and a curve.

    The same command again goes on where it was. `fiber eval SETS` measures a checkpoint on the same list as it is.
    """
    from fiber_cli.evaluation.few_shot import tunings
    from fiber_cli.evaluation.odinw import prompts_in_words, read_few_shot

    train_on(device)
    curve = Curve(
        command="few-shot",
        output=output,
        results="few_shot.json",
        init_from=init_from,
        full_recipe=full_recipe,
        recipe=recipe,
        overrides=with_max_pixels(overrides, max_pixels),
        placement=placement_words(precision, device, tf32),
        nproc=nproc,
        force=force,
        settings={"sets": str(sets.resolve()), "recipes": [full_recipe, recipe]},
    )
    few_shot_sets = read_few_shot(sets)
    curve.settings.update(prompts_in_words([each.test for each in few_shot_sets]))
    run_curve(curve, tunings(few_shot_sets, shot_numbers(shots), whole_numbers(seeds, "--seeds")))


def with_max_pixels(overrides: Sequence[str] | None, max_pixels: int | None) -> tuple[str, ...]:
    limit = [] if max_pixels is None else [f"{_MAX_PIXELS}{max_pixels}"]
    return (*(overrides or ()), *limit)


def shot_numbers(text: str) -> tuple[int, ...]:
    """The value of --shots, each number once."""
    numbers = []
    for word in text.split(","):
        if not word.strip().isdecimal():
            raise typer.BadParameter(f"--shots {text}: give whole numbers, such as 0,1,3,5,10; 0 is all data")
        numbers.append(int(word))
    return tuple(dict.fromkeys(numbers))


def run_curve(curve: Curve, tunings: "Sequence[Tuning]", all_sets: Sequence[str] = ()) -> None:
    """Do what is not done of the tunings, and say and write their APs and those of earlier calls for the folder.

    all_sets: the names of those that there are, where those without an AP are to be listed.
    """
    from fiber_cli.checkpoints.directory import resolve
    from fiber_cli.distributed.folder_lock import locked
    from fiber_cli.evaluation.few_shot_curve import few_shot_curve
    from fiber_cli.evaluation.odinw_table import OdinwAp, names_of, odinw_summary, odinw_table

    refuse_ranks(curve.command)
    _refuse_missing_files(tunings)
    _say_scarce(curve.command, tunings)
    weights = resolve(named_to_start("detection", curve.init_from))
    outputs = _outputs(tunings, weights, curve)
    settings = {"init_from": str(weights.resolve()), **curve.settings, "overrides": list(curve.overrides)}
    results = []
    with locked(curve.output):
        _keep_settings(curve.output / SETTINGS_FILE, settings, outputs, curve.command)
        for number, tuning in enumerate(tunings, 1):
            say(f"{curve.command}: {number} of {len(tunings)}, {tuning.name}")
            ap = _tune_and_measure(tuning, weights, curve, outputs)
            results.append(OdinwAp(tuning.set_name, tuning.shots, tuning.seed, ap))
        results += list(_of_earlier_calls(curve, results, outputs))
        results.sort(key=_by_shots)
        summary = {**settings, **odinw_summary(results)}
        if all_sets:
            present = names_of(results)
            summary["missing_sets"] = [name for name in all_sets if name not in present]
        outputs.write(curve.output / curve.results, json.dumps(summary, indent=2) + "\n")
        outputs.write(curve.output / CURVE_FILE, few_shot_curve(results))
    show(odinw_table(results))
    show(one_line(f"{curve.output / curve.results}, {curve.output / CURVE_FILE}"))


def _refuse_missing_files(tunings: "Sequence[Tuning]") -> None:
    """Before days of training, not after some of them."""
    files: list[str] = []
    for tuning in tunings:
        files += tuning.train.json, tuning.valid.json, tuning.test.json
    missing = [file for file in dict.fromkeys(files) if not Path(file).is_file()]
    if missing:
        raise UserError(f"not there: {first_names(missing)}; fetch them, or leave out their sets, shots or seeds")


def _say_scarce(command: str, tunings: "Sequence[Tuning]") -> None:
    """Of which categories images are drawn and there are fewer than the shots. UserError for files that cannot be
    read."""
    from fiber_cli.evaluation.few_shot import images_of_categories

    most: dict[str, int] = {}
    sets = {}
    for tuning in tunings:
        if tuning.train.shots is not None:
            most[tuning.train.json] = max(tuning.train.shots, most.get(tuning.train.json, 0))
            sets[tuning.train.json] = tuning.set_name
    for file, shots in most.items():
        scarce = [f"{name} ({images})" for name, images in images_of_categories(file).items() if 0 < images < shots]
        if scarce:
            say(f"{command}: {sets[file]} has fewer than {shots} images of {first_names(scarce)}")


def _outputs(tunings: "Sequence[Tuning]", weights: Path, curve: Curve) -> "Outputs":
    """What may be replaced: nothing that is read. UserError, before days of training, for a file that may not be."""
    from fiber_cli.data.source_files import source_files
    from fiber_cli.outputs import Outputs

    sources: list[CocoSettings] = []
    for tuning in tunings:
        sources += tuning.train, tuning.valid, tuning.test
    outputs = Outputs(force=curve.force, inputs=chain(source_files(sources), weights.rglob("*")))
    outputs.check(curve.output / curve.results)
    outputs.check(curve.output / CURVE_FILE)
    return outputs


def _keep_settings(file: Path, settings: dict[str, Any], outputs: "Outputs", command: str) -> None:
    """What all runs of the folder share; UserError where those in it were made otherwise."""
    from fiber_cli.data.files import read_json

    if not os.path.lexists(file):
        outputs.write(file, json.dumps(settings, indent=2) + "\n")
        return
    earlier = read_json(file, "the settings of the runs beside it")
    if not isinstance(earlier, dict):
        raise UserError(f"{file} does not hold the settings of `fiber {command}`; give another --output")
    differing = []
    for name, value in settings.items():
        if earlier.get(name) != value:
            differing.append(f"{name}: {earlier.get(name)!r} there, {value!r} now")
    if differing:
        raise UserError(f"{file.parent} holds runs with other settings ({'; '.join(differing)}): give another --output")


def _tune_and_measure(tuning: "Tuning", weights: Path, curve: Curve, outputs: "Outputs") -> float:
    """The AP on `test`, from what is finished in the tuning's folder; the rest is done."""
    folder = curve.output / tuning.name
    results = folder / "test" / RESULTS
    metrics = _metrics(results)
    if metrics is None:
        if not (folder / SUMMARY).is_file():
            arguments = [*_training_arguments(tuning, folder, weights, curve), *curve.placement]
            run_command(curve.command, curve.nproc, arguments)
        further = [*_max_pixels(curve.overrides), *curve.placement]
        run_command(curve.command, curve.nproc, [*_test_arguments(tuning, folder, outputs), *further])
        metrics = _metrics(results)
    if metrics is None or "detection/ap" not in metrics:
        raise UserError(f"{tuning.test.json}: no object of it could be scored, see {results}")
    return metrics["detection/ap"]


def _of_earlier_calls(curve: Curve, results: "Sequence[OdinwAp]", outputs: "Outputs") -> "Iterator[OdinwAp]":
    """The APs of other sets, shots or draws in the file that is about to be replaced, as far as their results are still
    there."""
    from fiber_cli.evaluation.few_shot import tuning_name
    from fiber_cli.evaluation.odinw_table import OdinwAp

    file = curve.output / curve.results
    if not outputs.wrote(file):
        return
    of_this_call = {result[:3] for result in results}
    for run in parse_json(read_regular(file))["runs"]:
        earlier = OdinwAp(**run)
        name = tuning_name(earlier.set_name, earlier.shots, earlier.seed)
        metrics = _metrics(curve.output / name / "test" / RESULTS) or {}
        if earlier[:3] not in of_this_call and "detection/ap" in metrics:
            yield earlier._replace(ap=metrics["detection/ap"])


def _by_shots(result: "OdinwAp") -> int:
    return result.shots


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


def _training_arguments(tuning: "Tuning", folder: Path, weights: Path, curve: Curve) -> list[str]:
    """`fiber finetune` of a tuning, or its continuation."""
    from fiber_cli.training.run_folder import is_new

    start = ["--init-from", str(weights)] if is_new(folder) else ["--resume"]
    recipe = curve.full_recipe if tuning.seed is None else curve.recipe
    data = [f"data.train=[{_entry(tuning.train)}]", f"data.val=[{_entry(tuning.valid)}]"]
    return ["finetune", "detection", "--recipe", recipe, "--output", str(folder), *start, *data, *curve.overrides]


def _entry(source: "CocoSettings") -> str:
    """A source as the command line has it: JSON is YAML."""
    return dump_json({"kind": source.kind, **source.arguments()})


def _test_arguments(tuning: "Tuning", folder: Path, outputs: "Outputs") -> list[str]:
    """`fiber eval` of the best weights on the set's `test`."""
    test = tuning.test
    sets = folder / "test.yaml"
    entry = {"name": test.name, "json": test.json, "images": test.images, "prompts": test.prompts}
    outputs.write(sets, dump_json([entry], indent=2) + "\n")
    checkpoints = folder / CHECKPOINTS
    pointer = checkpoints / BEST
    if not os.path.lexists(pointer):
        pointer = checkpoints / LATEST
    may_replace = ["--force"] if outputs.force else []
    return ["eval", str(sets), "--checkpoint", str(pointer), "--output", str(folder / "test"), *may_replace]


def _max_pixels(overrides: Sequence[str]) -> list[str]:
    """The limit of the pictures' pixels in training, as an option of `fiber eval`."""
    limits = [setting.removeprefix(_MAX_PIXELS) for setting in overrides if setting.startswith(_MAX_PIXELS)]
    return ["--max-pixels", limits[-1]] if limits else []
