"""Options and arguments that several commands share."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fiber_cli.evaluation.names import DATASETS
from fiber_cli.placement import Precision, TrainingPrecision

#: Processes that read data, where none are asked for.
WORKERS = min(4, os.cpu_count() or 1)
#: GiB of text stems in memory.
STEM_MEMORY = 4.0

DATASET_HELP = (
    f"{', '.join(DATASETS)}, a JSON of captions, boxes or questions, a JSONL, a data.yaml, a YAML list of detection "
    "sets, a folder with boxes as labelling tools export them, or .tar shards."
)

Nproc = Annotated[int, typer.Option(min=1, help="Processes to start on this machine.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="SECTION.KEY=VALUE", help="Settings put over the recipe's.")
]
RecipeName = Annotated[str, typer.Option(help="A recipe file, or the name of a shipped one.")]

Latest = Annotated[bool, typer.Option("--latest", help="Of a run its latest checkpoint, not its best.")]

Force = Annotated[bool, typer.Option("--force", help="Replace files that fiber did not write.")]

# Where and how precisely a model computes: every command that runs one has all three, see `tests/cli/test_options.py`
PrecisionOption = Annotated[
    Precision, typer.Option("--precision", help="Of the products; auto: bf16 on GPUs that have it, else fp32.")
]
PrecisionOfTraining = Annotated[
    TrainingPrecision | None, typer.Option("--precision", help="The recipe's runtime.precision.")
]
DeviceOption = Annotated[
    str | None,
    typer.Option("--device", metavar="NAME", help="cpu, cuda, cuda:1 … or mps.  [default: a GPU where there is one]"),
]
DeviceOfTraining = Annotated[
    str | None, typer.Option("--device", metavar="NAME", help="cpu or cuda.  [default: GPUs where there are some]")
]
Tf32 = Annotated[
    bool | None,
    typer.Option(
        "--tf32/--no-tf32",
        help="GPUs round the factors of float32 products to TensorFloat-32.  [default: in convolutions alone]",
    ),
]

Tf32OfTraining = Annotated[
    bool | None,
    typer.Option("--tf32/--no-tf32", help="The recipe's runtime.tf32: TensorFloat-32 in float32 products of GPUs."),
]

PrecisionOfBoth = Annotated[
    TrainingPrecision | None,
    typer.Option("--precision", help="Of trainings and evaluations.  [default: the recipe's, and auto]"),
]
Tf32OfBoth = Annotated[
    bool | None,
    typer.Option(
        "--tf32/--no-tf32", help="The same of TensorFloat-32.  [default: the recipe's, in convolutions alone]"
    ),
]


def placement_words(precision: str | None, device: str | None, tf32: bool | None) -> tuple[str, ...]:
    """The same options for the commands that another one starts."""
    given = {"--precision": precision, "--device": device}
    words: list[str] = []
    for option, value in given.items():
        if value is not None:
            words += option, value
    if tf32 is not None:
        words.append(_tf32_word(tf32))
    return tuple(words)


def _tf32_word(tf32: bool) -> str:
    return "--tf32" if tf32 else "--no-tf32"


def with_placement(overrides: list[str] | None, precision: str | None, tf32: bool | None) -> list[str]:
    """The overrides of a recipe, and what --precision and --tf32 say; an override that says otherwise is a usage
    error."""
    settings = list(overrides or [])
    if precision is not None:
        _put(settings, f"--precision {precision}", "runtime.precision", precision)
    if tf32 is not None:
        _put(settings, _tf32_word(tf32), "runtime.tf32", str(tf32).lower())
    return settings


def _put(settings: list[str], option: str, name: str, value: str) -> None:
    named = f"{name}={value}"
    for setting in settings:
        if setting.startswith(f"{name}=") and setting != named:
            raise typer.BadParameter(f"{option} beside {setting}: give one of them")
    settings.append(named)


# Evaluation
Split = Annotated[
    str | None,
    typer.Option(help="[default: test of retrieval, captions, flickr30k_entities and odinw13, dev of nlvr2, else val]"),
]
Root = Annotated[
    Path | None, typer.Option(help="Folder of a known dataset, or the recipes' data.root; or a JSON's images.")
]
ImagesOfData = Annotated[
    Path | None, typer.Option("--images", help="Folder that the file names of the dataset's images start from.")
]
Results = Annotated[
    Path | None,
    typer.Option(
        help="Results folder; earlier results in it are replaced.  [default: eval/ in the run, else in this folder]"
    ),
]


def checkpoint_name(text: str) -> str:
    """The value of --checkpoint and its like. One that begins with a dot is a path whatever it names: ./builtin is not
    what ships with the package, and ./org/name not what the hub has."""
    return str(Path(text).absolute()) if text.startswith(".") else text


def checkpoint_option(about: str) -> Any:
    """An option that is a checkpoint: a path, `builtin`, a name on the hub or an address; `cli.runs` finds it."""
    return typer.Option(parser=checkpoint_name, metavar="<path or org/name>", help=about)


FittingCheckpoint = Annotated[
    str | None,
    checkpoint_option(
        "A run, a checkpoint, org/name of the hub, or builtin: what ships with fiber.  "
        "[default: the newest run below runs/ that can, and was trained on the data]"
    ),
]
ItmCheckpoint = Annotated[str | None, checkpoint_option("Checkpoint that scores pairs, if not the same.")]
EvaluationBatch = Annotated[
    int | None, typer.Option(min=1, help="Images, texts or pairs per rank and pass.  [default: 64, for detectors 4]")
]
Workers = Annotated[int, typer.Option(min=0, help="Processes that read data, per rank.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Evaluate the first N samples only.")]
StemMemory = Annotated[float, typer.Option(min=0, help="GiB of text stems in memory; more lie on disk.")]

# A user's own pictures
Images = Annotated[list[Path], typer.Argument(help="Image files, and folders with them.", show_default=False)]
Checkpoint = Annotated[
    str | None,
    checkpoint_option(
        "A run, a checkpoint, org/name of the hub, or builtin: what ships with fiber.  "
        "[default: the newest run below runs/ that can]"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Batch = Annotated[int, typer.Option(min=1, help="Images per pass.")]
MaxPixels = Annotated[int, typer.Option(min=1, help="Images with more pixels are left out.")]


def one_of(names: tuple[str, ...]) -> Any:
    """The type of an argument that is one of these names, which are only known when the program runs."""
    return Literal.__getitem__(names)


def chunk_size(text: str) -> int | str:
    """The value of --chunk: a number of names in a prompt, or "auto"."""
    if text == "auto":
        return text
    if not text.isdecimal() or int(text) == 0:
        raise typer.BadParameter(f"--chunk {text}: give a whole number from 1, or auto")
    return int(text)


def whole_numbers(text: str, option: str = "--top-k") -> tuple[int, ...]:
    """The value of --top-k or another option: numbers from 1, separated by commas."""
    numbers = []
    for number in text.split(","):
        if not number.strip().isdecimal() or int(number) == 0:
            raise typer.BadParameter(f"{option} {text}: give whole numbers from 1, such as 10,20,50,100")
        numbers.append(int(number))
    return tuple(numbers)
