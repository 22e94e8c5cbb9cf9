"""How many graphs torch.compile makes of the detector's training step as picture after picture of another size comes.

    python -m benchmarks.compile_graphs                   # tiny, 50 sizes, on a CPU a few minutes
    python -m benchmarks.compile_graphs --preset base     # with a GPU

Graphs are counted as torch traces them, and run as they are: what a compiler makes of each is not the matter here.
Text lengths are multiples of 8, as collators pad them. The losses of the last picture must be those without compiling.
"""

import dataclasses
import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import hardware, options, pick_device, write
from fiber_cli.model.compiling import compile_blocks
from fiber_cli.model.config import PRESETS
from fiber_cli.model.windows import KEPT_PLANS
from fiber_cli.tasks.regions.task import RegionTask

#: Sides of pictures in pixels are multiples of 32 between these.
SHORTEST, LONGEST = 256, 800
#: Every so many sizes a line.
EVERY = 10


class Graphs:
    """A backend of torch.compile that counts its graphs and leaves them as they are."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Any:
        self.count += 1
        return graph.forward


def picture(generator: torch.Generator, sides: tuple[int, int], length: int, vocab: int) -> dict[str, Any]:
    """A batch of one picture of random pixels (height, width) with two boxes and a text of so many tokens."""
    height, width = sides
    names = torch.zeros(2, length)
    names[0, 1] = names[1, 2] = 1
    return {
        "pixels": torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=generator),
        "sizes": torch.tensor([[height, width]]),
        "ids": torch.randint(5, vocab, (1, length), generator=generator),
        "mask": torch.ones(1, length, dtype=torch.bool),
        "boxes": torch.tensor([[8.0, 8, height / 2, width / 2], [20, 40, 120, 160]]),
        "positive_map": names,
        "box_counts": [2],
    }


def other_sizes(generator: torch.Generator, count: int) -> list[tuple[int, int]]:
    """So many sizes, no two alike."""
    sizes: list[tuple[int, int]] = []
    while len(sizes) < count:
        height, width = torch.randint(SHORTEST // 32, LONGEST // 32 + 1, (2,), generator=generator).tolist()
        size = (32 * height, 32 * width)
        if size not in sizes:
            sizes.append(size)
    return sizes


def main() -> None:
    parser = options(__doc__)
    parser.set_defaults(preset="tiny")
    parser.add_argument("--sizes", type=int, default=50, help="pictures, each of another size")
    args = parser.parse_args()
    device = pick_device()
    preset = PRESETS[args.preset]
    # No chance, so that losses can be compared; the rates differ from block to block as in training.
    image = dataclasses.replace(preset.image, drop_path=0.4)
    config = dataclasses.replace(preset, image=image, text=dataclasses.replace(preset.text, dropout=0.0))
    torch.manual_seed(0)
    settings: dict[str, Any] = {"channels": 32, "blocks": 2} if args.preset == "tiny" else {}
    task = RegionTask(config, **settings).to(device).train()
    graphs = Graphs()
    compile_blocks(task, any_size=True, backend=graphs)
    generator = torch.Generator().manual_seed(0)
    counts, began = [], time.monotonic()
    batch: dict[str, Any] = {}
    for number, sides in enumerate(other_sizes(generator, args.sizes), 1):
        length = 8 * int(torch.randint(2, 9, (), generator=generator))
        batch = picture(generator, sides, length, config.text.vocab)
        batch = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
        task(batch)["loss"].backward()
        counts.append(graphs.count)
        if number % EVERY == 0 or number == 1:
            print(f"{number:3} sizes: {graphs.count} graphs, {time.monotonic() - began:.0f} s", flush=True)
    task.eval()
    with torch.no_grad():
        compiled = float(task(batch)["loss"])
        with torch.compiler.set_stance("force_eager"):
            eager = float(task(batch)["loss"])
    print(f"loss of the last picture: {compiled:.6f} compiled, {eager:.6f} not")
    report = {
        "preset": args.preset,
        "hardware": hardware(device),
        "torch": torch.__version__,
        "sizes": args.sizes,
        "sides": [SHORTEST, LONGEST],
        "graphs_after_each_size": counts,
        "seconds": time.monotonic() - began,
        "loss_compiled": compiled,
        "loss_eager": eager,
        "kept_plans_at_most": KEPT_PLANS,
    }
    write(report, args.json)


if __name__ == "__main__":
    main()
