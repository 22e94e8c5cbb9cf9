"""Beam search over the decoder's cache against the published way, which recomputes the whole text at every step.

    python -m benchmarks.caption                              # base at 384, CPU or GPU
    python -m benchmarks.caption --preset tiny --batch 8

Both search the same image memory, computed once and timed apart; captions are of the full length, because weights are
random. "prefix" recomputes the tokens so far, "full width" a text of the full length, as published; both repeat the
image memory for every beam. All must find the same tokens.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common import hardware, open_gates, options, pick_device, timed, write
from fiber_cli.model import beam_search as search
from fiber_cli.model.captioner import Stepper
from fiber_cli.model.config import PRESETS
from fiber_cli.tasks.caption.task import CaptionTask


class Prefix(Stepper):
    """Keeps nothing between steps."""

    def states(self) -> Tensor:
        return self.recomputed(self.tokens)

    def recomputed(self, ids: Tensor) -> Tensor:
        memory = self.memory.repeat_interleave(self.captions_per_image, 0)
        return self.captioner.states(memory, ids)[:, self.tokens.shape[1] - 1]

    def select(self, captions: Tensor) -> None:
        self.tokens = self.tokens[captions]


class FullWidth(Prefix):
    width: int

    def states(self) -> Tensor:
        return self.recomputed(F.pad(self.tokens, (0, self.width - self.tokens.shape[1]), value=self.special.pad))


WAYS = {"cache": Stepper, "prefix": Prefix, "full width": FullWidth}


@torch.no_grad()
def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--batch", type=int, help="images, default 4 on a CPU, 32 on a GPU")
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--length", type=int, default=20, help="generated tokens")
    parser.add_argument("--repeats", type=int, default=3, help="timed searches of each, after one that does not count")
    args = parser.parse_args()
    device = pick_device()
    batch = args.batch or (32 if device.type == "cuda" else 4)
    config = PRESETS[args.preset]
    torch.manual_seed(0)
    task = CaptionTask(config, mask_id=config.text.vocab - 1).to(device).eval()
    open_gates(task)
    pixels = torch.randn(batch, 3, *config.image_size, device=device)
    task.captioner.memory(pixels)
    image_seconds, memory = timed(lambda: task.captioner.memory(pixels), device)
    FullWidth.width = args.length + 1
    settings = {"beam": args.beam, "max_length": args.length + 1, "special": task.special}
    seconds, found = {}, {}
    for name, stepper in WAYS.items():
        search.Stepper = stepper
        runs = [timed(lambda: search.beam_search(task.captioner, memory, **settings), device)]
        runs += [
            timed(lambda: search.beam_search(task.captioner, memory, **settings), device) for _ in range(args.repeats)
        ]
        seconds[name] = sorted(run[0] for run in runs[1:])[args.repeats // 2]
        found[name] = runs[-1][1][0]
        assert torch.equal(found[name], found["cache"]), f"{name} found other tokens"
    report = {
        "preset": args.preset,
        "batch": batch,
        "beam": args.beam,
        "tokens": args.length,
        "hardware": hardware(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "image_seconds": image_seconds,
        "search_seconds": seconds,
        "ratio": {name: seconds["cache"] / value for name, value in seconds.items()},
    }
    print(
        f"{args.preset} at {config.image_size[0]}, {batch} images, beam {args.beam}, {args.length} tokens, fp32, ",
        end="",
    )
    print(f"{report['hardware']}, {report['threads']} threads; image memory: {image_seconds:.3f} s")
    for name, value in seconds.items():
        ratio = report["ratio"][name]
        print(f"{name:12} {value:9.3f} s   {batch / value:9.3f} images/s   time of cache / this: {ratio:.3f}")
    print("same tokens")
    write(report, args.json)


if __name__ == "__main__":
    main()
