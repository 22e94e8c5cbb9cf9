"""`fiber odinw`: the 13 sets of ODinW, fine-tuned one after another, with all of their data and with few shots."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fiber_cli.cli.few_shot import (
    FEW_SHOT_RECIPE,
    FULL_RECIPE,
    Curve,
    FewShotOutput,
    ImagePixels,
    InitFrom,
    Seeds,
    run_curve,
    with_max_pixels,
)
from fiber_cli.cli.options import (
    DeviceOfTraining,
    Force,
    Nproc,
    Overrides,
    PrecisionOfBoth,
    Tf32OfBoth,
    placement_words,
    whole_numbers,
)
from fiber_cli.cli.processes import train_on
from fiber_cli.errors import UserError
from fiber_cli.printing import say

if TYPE_CHECKING:
    from fiber_cli.evaluation.odinw13 import OdinwArchive


def odinw(
    overrides: Overrides = None,
    *,
    root: Annotated[Path, typer.Option(help="Folder of the archive, or the recipes' data.root.")],
    init_from: InitFrom,
    shots: Annotated[str, typer.Option(help="0 = all data; else the published draws of so many.")] = "0,1,3,5,10",
    seeds: Seeds = "3,30,300",
    sets: Annotated[str | None, typer.Option(help="Names of sets, with commas.  [default: all that are there]")] = None,
    published_prompts: Annotated[
        bool, typer.Option("--published-prompts", help="The published prompts instead of the names alone.")
    ] = False,
    output: FewShotOutput = Path("runs/odinw13"),
    nproc: Nproc = 1,
    force: Force = False,
    max_pixels: ImagePixels = None,
    precision: PrecisionOfBoth = None,
    device: DeviceOfTraining = None,
    tf32: Tf32OfBoth = None,
) -> None:
    """Fine-tune on each set of ODinW-13, all data and few shots; the AP on `test` of the best on `valid`, and means.

    Full data goes by the recipe odinw, few shots by odinw_few_shot. The same command again goes on where it was. `fiber
    few-shot` does the same with a list of your own sets.
    """
    from fiber_cli.evaluation.few_shot import tunings
    from fiber_cli.evaluation.odinw13 import SETS, completeness

    archive = _archive(root, sets)
    of_archive = [archive.few_shot_set(each, published_prompts=published_prompts) for each in archive.present]
    planned = tunings(of_archive, _published_shots(shots), whole_numbers(seeds, "--seeds"))
    incomplete = completeness(archive.missing)
    if incomplete is not None:
        say(f"odinw: {incomplete}")
    train_on(device)
    curve = Curve(
        command="odinw",
        output=output,
        results="odinw.json",
        init_from=init_from,
        full_recipe=FULL_RECIPE,
        recipe=FEW_SHOT_RECIPE,
        overrides=with_max_pixels(overrides, max_pixels),
        placement=placement_words(precision, device, tf32),
        nproc=nproc,
        force=force,
        settings={"prompts": "published" if published_prompts else "names"},
    )
    run_curve(curve, planned, [each.name for each in SETS])


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


def _published_shots(text: str) -> tuple[int, ...]:
    """The value of --shots."""
    from fiber_cli.evaluation.few_shot import ALL_DATA
    from fiber_cli.evaluation.odinw13 import SHOTS

    valid = {str(number): number for number in (ALL_DATA, *SHOTS)}
    numbers = []
    for word in text.split(","):
        if word.strip() not in valid:
            raise typer.BadParameter(f"--shots {text}: give of {', '.join(valid)}; 0 is all data")
        numbers.append(valid[word.strip()])
    return tuple(dict.fromkeys(numbers))
