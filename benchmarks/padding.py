"""How much of what a detector computes in training is padding, with pictures as they come and dealt out by shape
(`task.group_by_shape`).

    python -m benchmarks.padding                       # drawn shapes: 4:3 and 3:2, a quarter of them standing
    python -m benchmarks.padding --images FOLDER       # those of the photographs in a folder

Areas are of steps of 64 pictures at the shorter sides of the paper, padded as batches are; time is of forward and
backward passes of a detector of the preset over a step's micro-batches, in pictures of a quarter of those sides, by the
processor time of this process where there is no GPU.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.common import hardware, options, pick_device, timed, write
from fiber_cli.data.mixing import Mixture, StepSampler
from fiber_cli.data.records import NamedBoxes, Size
from fiber_cli.data.source import RegionSource
from fiber_cli.model.config import PRESETS
from fiber_cli.model.pixels import padded
from fiber_cli.tasks.regions.settings import FineSettings
from fiber_cli.tasks.regions.task import RegionTask
from fiber_cli.tasks.regions.transforms import RegionTransform

GLOBAL_BATCH = 64
MICRO_BATCHES = (2, 4, 8)
#: (height, width), and how often they are drawn.
DRAWN = {(480, 640): 0.5, (427, 640): 0.25, (640, 480): 0.17, (640, 427): 0.08}
#: Pictures of the timed steps are this much smaller.
TIMED_SCALE = 0.25
TOKENS = 32


class Shapes(RegionSource):
    """Pictures of which the sizes alone are known."""

    name = "shapes"

    def __init__(self, sizes: Sequence[Size]):
        self._sizes = list(sizes)

    def total(self) -> int:
        return len(self._sizes)

    def key(self, i: int) -> str:
        return str(i)

    def image(self, i: int, at_least: int = 0) -> Image.Image:
        height, width = self._sizes[i]
        return Image.new("RGB", (width, height))

    def regions(self, i: int) -> NamedBoxes:
        return NamedBoxes(np.empty((0, 4), np.float32), np.empty(0, np.int64), self._sizes[i])

    def known_size(self, i: int) -> Size:
        return self._sizes[i]


class Drawing:
    """The size that a picture gets, with one draw as in training."""

    def __init__(self, scale: float = 1):
        settings = FineSettings(name="detection")
        sides = [round(scale * side) for side in settings.short_sides]
        self._transform = RegionTransform(sides, round(scale * settings.longest_side), flip=0)

    def __call__(self, source: RegionSource, i: int, rng: np.random.Generator) -> Size:
        size = source.known_size(i)
        assert size is not None
        return self._transform.new_size(size, self._transform.short_side(rng))


def sizes_in(folder: Path | None) -> list[Size]:
    """Those of a folder's pictures, upright, or drawn ones."""
    if folder is None:
        chosen = np.random.default_rng(0).choice(len(DRAWN), 2000, p=list(DRAWN.values()))
        shapes = list(DRAWN)
        return [shapes[number] for number in chosen.tolist()]
    sizes = []
    for path in sorted(folder.iterdir()):
        with Image.open(path) as picture:
            sizes.append((picture.height, picture.width))
    return sizes


def micro_batches(
    mixture: Mixture, micro_batch: int, steps: int, drawing: Drawing, *, by_shape: bool
) -> list[list[Size]]:
    """The sizes of the pictures of each micro-batch."""
    dealing = drawing if by_shape else None
    sampler = StepSampler(mixture, GLOBAL_BATCH, micro_batch, 0, 1, 0, steps, dealing)
    batches = []
    for entries in sampler:
        sizes = []
        for epoch, entry in entries:
            which, i = mixture.locate(entry)
            sizes.append(drawing(mixture.sources[which], i, mixture.chance(epoch, entry)))
        batches.append(sizes)
    return batches


def padded_to(sizes: Sequence[Size]) -> Size:
    heights, widths = zip(*sizes, strict=True)
    return padded(max(heights)), padded(max(widths))


def area(batches: Sequence[Sequence[Size]]) -> int:
    """Pixels that are computed."""
    return sum(len(sizes) * math.prod(padded_to(sizes)) for sizes in batches)


def step_seconds(task: RegionTask, batches: Sequence[Sequence[Size]], device: torch.device) -> float:
    """Of forward and backward passes over micro-batches of these sizes."""
    total = 0.0
    for sizes in batches:
        height, width = padded_to(sizes)
        count = len(sizes)
        names = torch.zeros(count, TOKENS, device=device)
        names[:, 1] = 1
        batch = {
            "pixels": torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, device=device),
            "sizes": torch.tensor(sizes, device=device),
            "ids": torch.randint(5, 1000, (count, TOKENS), device=device),
            "mask": torch.ones(count, TOKENS, dtype=torch.bool, device=device),
            "boxes": torch.tensor([[8.0, 8, 40, 60]] * count, device=device),
            "positive_map": names,
            "box_counts": [1] * count,
        }
        seconds, _ = timed(lambda given=batch: task(given)["loss"].backward(), device, of_process=device.type == "cpu")
        total += seconds
    return total


def main() -> None:
    parser = options(__doc__)
    parser.set_defaults(preset="tiny")
    parser.add_argument("--images", type=Path, help="a folder that holds photographs alone")
    parser.add_argument("--steps", type=int, default=30, help="steps whose areas are summed")
    parser.add_argument("--timed", type=int, default=1, help="steps that are timed")
    parser.add_argument("--micro-batches", type=int, nargs="+", default=MICRO_BATCHES)
    args = parser.parse_args()
    device = pick_device()
    mixture = Mixture([Shapes(sizes_in(args.images))], [1], seed=0)
    torch.manual_seed(0)
    task = RegionTask(PRESETS[args.preset]).to(device).train()
    rows = []
    for micro_batch in args.micro_batches:
        each_alone = area(micro_batches(mixture, 1, args.steps, Drawing(), by_shape=False))
        row: dict[str, float] = {"micro_batch": micro_batch}
        small = Drawing(TIMED_SCALE)
        for name, by_shape in (("as they come", False), ("by shape", True)):
            drawn = micro_batches(mixture, micro_batch, args.steps, Drawing(), by_shape=by_shape)
            row[f"area, {name}"] = area(drawn) / each_alone
            timed_batches = micro_batches(mixture, micro_batch, args.timed, small, by_shape=by_shape)
            row[f"seconds, {name}"] = step_seconds(task, timed_batches, device)
        row["area_ratio"] = row["area, as they come"] / row["area, by shape"]
        row["time_ratio"] = row["seconds, as they come"] / row["seconds, by shape"]
        rows.append(row)
        print(
            f"micro-batches of {micro_batch}: of the pictures' own area {row['area, as they come']:.2f} as they come, "
            f"{row['area, by shape']:.2f} by shape; {row['time_ratio']:.2f} times faster",
            flush=True,
        )
    report = {"preset": args.preset, "hardware": hardware(device), "pictures": len(mixture), "rows": rows}
    write(report, args.json)


if __name__ == "__main__":
    main()
