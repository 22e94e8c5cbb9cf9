"""Fusion scores of N images with M texts: cached stems against every pair from its pixels.

    python -m benchmarks.rerank                                   # base at 384, CPU or GPU
    python -m benchmarks.rerank --preset tiny --images 16 --texts 64

Prints, from one run: floating-point operations (2 per multiply-add) and seconds, stems included, of both ways. Every
pair from its pixels, with texts padded to the text length as published, is timed on a sample of the pairs, whose scores
must agree. Then, computed from these figures, what re-ranking costs at the size of COCO's 5k test split.
"""

import numpy as np
import torch
from torch import nn

from benchmarks.coarse_step import count_operations, random_batch
from benchmarks.common import hardware, open_gates, options, pick_device, timed, write
from fiber_cli.data.text import load_tokenizer
from fiber_cli.model.config import PRESETS, FiberConfig
from fiber_cli.model.fusion import FusedEncoder, ImageStem, TextStem
from fiber_cli.model.pixels import normalize
from fiber_cli.tasks.abilities import Matching
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.items import ImageSet, TextSet
from fiber_cli.tasks.prediction import PredictOptions
from fiber_cli.tasks.retrieval.pairs import grouped, match_scores, score_pairs

LENGTH = 40
COCO_IMAGES, COCO_TEXTS = 5_000, 25_010
KS = (10, 20, 50, 100)


class Images(ImageSet):
    """Images that lie in memory, uint8 (N, 3, H, W)."""

    def __init__(self, pixels: torch.Tensor):
        super().__init__([], 32)
        self.pixels = pixels
        self.ids = [str(number) for number in range(len(pixels))]

    def read(self, index: int) -> dict[str, torch.Tensor]:
        return {"pixels": self.pixels[index]}


class Texts(TextSet):
    """Texts that lie in memory as token ids int64 and mask bool (M, L)."""

    def __init__(self, ids: torch.Tensor, mask: torch.Tensor):
        super().__init__([""] * len(ids), load_tokenizer("builtin"), ids.shape[1])
        self.token_ids, self.mask = ids, mask

    def read(self, index: int) -> dict[str, torch.Tensor]:
        return {"ids": self.token_ids[index], "mask": self.mask[index]}


@torch.no_grad()
def from_pixels(task: CoarseTask, pixels: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The "matched" logits of pairs (image b, text b), each computed on its own from the start."""
    encoder = task.encoder
    fused = encoder.fuse(encoder.image_stem(normalize(pixels)), encoder.text_stem(ids, mask))
    return task.itm(task.pool(fused.pyramid[-1], fused.text))[:, 1]


class MatchOnly(nn.Module, Matching):
    """What a pair score needs of a task, without the heads: for counting."""

    def __init__(self, config: FiberConfig):
        super().__init__()
        self.encoder = FusedEncoder(config)

    def match(self, image: ImageStem, text: TextStem, *, pooled: bool = False) -> torch.Tensor:
        fused = self.encoder.fuse(image, text, pooled=pooled)
        return torch.cat([fused.pyramid[-1][:, 0, 0, :1], fused.text[:, 0, :1]], 1)


def operations(config: FiberConfig, images: int, lengths: np.ndarray, batch: int) -> tuple[int, int]:
    """Of all pairs, with cached stems and from pixels."""
    with torch.device("meta"):
        task, pixels = MatchOnly(config), torch.zeros(1, 3, *config.image_size)
        ids, real = torch.zeros(1, LENGTH, dtype=torch.long), torch.ones(1, LENGTH, dtype=torch.bool)
        image_stem = count_operations(lambda: task.encoder.image_stem(pixels))
        text_stem = count_operations(lambda: task.encoder.text_stem(ids, real))
        maps = task.encoder.image_stem(pixels).map

        def top(image_rows: int, texts: int, length: int, whole: bool = False) -> int:
            image = ImageStem(maps.expand(image_rows, -1, -1, -1))
            tokens = torch.zeros(texts, length, config.text.hidden)
            text = TextStem(tokens, torch.ones(texts, length, dtype=torch.bool))
            return count_operations(
                lambda: task.encoder.fuse(image, text) if whole else match_scores(task, image, text)
            )

        cached = images * image_stem + len(lengths) * text_stem
        for group in grouped([np.argsort(lengths, kind="stable")] * images, batch):
            counts = [len(texts) for _, texts in group]
            longest = max(int(lengths[texts].max()) for _, texts in group)
            cached += top(len(counts) if len(set(counts)) == 1 else sum(counts), sum(counts), longest)
        return cached, images * len(lengths) * (image_stem + text_stem + top(1, 1, LENGTH, whole=True))


@torch.no_grad()
def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--images", type=int, help="default 4 on a CPU, 32 on a GPU")
    parser.add_argument("--texts", type=int, help="default 64 on a CPU, 512 on a GPU")
    parser.add_argument("--batch", type=int, help="pairs a pass, default 8 on a CPU, 64 on a GPU")
    parser.add_argument("--sample", type=int, help="pairs computed from pixels, default 2 batches")
    args = parser.parse_args()
    device = pick_device()
    gpu = device.type == "cuda"
    images, texts = args.images or (32 if gpu else 4), args.texts or (512 if gpu else 64)
    batch = args.batch or (64 if gpu else 8)
    pairs, sample = images * texts, min(args.sample or 2 * batch, images * texts)
    config = PRESETS[args.preset]
    torch.manual_seed(0)
    task = CoarseTask(config).to(device).eval()
    open_gates(task)
    pixels = random_batch(config, images, LENGTH)["pixels"]
    text = random_batch(config, texts, LENGTH, seed=1)
    ids, mask = text["ids"], text["mask"]
    image_set, text_set = Images(pixels), Texts(ids, mask)
    encoder, scores = task.encoder, np.zeros(0)

    def cached() -> None:
        nonlocal scores
        scores = score_pairs(
            task, image_set, text_set, [np.arange(texts)] * images, PredictOptions(batch, workers=0)
        ).scores

    drawn = torch.randperm(pairs, generator=torch.Generator().manual_seed(0))[:sample]
    plain_scores = []

    def published(some: torch.Tensor) -> None:
        for part in some.split(batch):
            of_image, of_text = part // texts, part % texts
            found = from_pixels(task, *(t.to(device) for t in (pixels[of_image], ids[of_text], mask[of_text])))
            plain_scores.append(found.float().cpu().numpy())

    def image_stems() -> None:
        for part in pixels.split(batch):
            encoder.image_stem(normalize(part.to(device)))

    def text_stems() -> None:
        for rows, real in zip(ids.split(batch), mask.split(batch), strict=True):
            encoder.text_stem(rows.to(device), real.to(device))

    published(drawn[:batch])  # warms up
    plain_scores.clear()
    # Half before and half after, so that a machine that grows slower in between favours neither.
    plain = timed(lambda: published(drawn[: sample // 2]), device)[0]
    seconds = timed(cached, device)[0]
    per_image, per_text = timed(image_stems, device)[0] / images, timed(text_stems, device)[0] / texts
    per_pair = (seconds - images * per_image - texts * per_text) / pairs
    plain = (plain + timed(lambda: published(drawn[sample // 2 :]), device)[0]) * pairs / sample
    difference = float(np.abs(np.concatenate(plain_scores) - scores[drawn // texts, drawn % texts]).max())
    counted = operations(config, images, mask.sum(1).numpy(), batch)
    stems = COCO_IMAGES * per_image + COCO_TEXTS * per_text
    hours = {"all pairs": (stems + COCO_IMAGES * COCO_TEXTS * per_pair) / 3600}
    hours |= {f"rerank-{k}": (stems + (COCO_IMAGES + COCO_TEXTS) * k * per_pair) / 3600 for k in KS}
    report = {
        "preset": args.preset,
        "hardware": hardware(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "images": images,
        "texts": texts,
        "batch": batch,
        "cached_seconds": seconds,
        "pixels_seconds": plain,
        "pixels_pairs_timed": sample,
        "time_ratio": plain / seconds,
        "cached_tflop": counted[0] / 1e12,
        "pixels_tflop": counted[1] / 1e12,
        "operations_ratio": counted[1] / counted[0],
        "largest_difference": difference,
        "score_deviation": float(scores.std()),
        "seconds_per_image_stem": per_image,
        "seconds_per_text_stem": per_text,
        "seconds_per_pair": per_pair,
        "coco_5k_hours": hours,
    }
    lengths = f"{LENGTH // 2}-{LENGTH} tokens"
    where = f"{report['hardware']}, {report['threads']} threads, float32"
    print(f"{args.preset}, {images} images x {texts} texts of {lengths}, {batch} pairs a pass, {where}")
    print(f"cached stems:  {counted[0] / 1e12:9.3f} TFLOP {seconds:9.2f} s")
    print(f"from pixels:   {counted[1] / 1e12:9.3f} TFLOP {plain:9.2f} s, from {sample} of {pairs} pairs")
    print(f"operations: {report['operations_ratio']:.2f} times fewer, time: {report['time_ratio']:.2f} times less")
    print(f"scores: largest difference {difference:.1e}, standard deviation {scores.std():.1e}")
    print(f"one image stem {per_image:.4f} s, text stem {per_text:.4f} s, pair {per_pair:.4f} s")
    print("COCO 5k test, both directions, computed from these times (rerank: no pair shared by the directions):")
    print("  " + ", ".join(f"{name} {value:.2f} h" for name, value in hours.items()))
    write(report, args.json)
    assert difference <= 1e-4


if __name__ == "__main__":
    main()
