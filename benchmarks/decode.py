"""How many photographs a second one core decodes and turns into pixels for training.

    python -m benchmarks.decode
    python -m benchmarks.decode --size 224 --seconds 5 --json decode.json

Draws picture-like JPEG files in memory (sharp shapes on gradients, without noise, about as many bytes as a
photograph of that size) and times, on one thread: decoding; decoding and the plain resize of pre-training;
decoding, crop, mirror and RandAugment. "fast" is what training does: a JPEG much larger than needed is
decoded at a fraction of its size.
"""

import argparse
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFilter, features

from fiber_cli.data.images import open_image
from fiber_cli.data.transforms import EvalTransform, TrainTransform
from fiber_cli.distributed.device import processor_name

PHOTOGRAPHS = ((500, 375), (640, 480), (2048, 1536))


def photograph(width: int, height: int, rng: np.random.Generator) -> bytes:
    """A JPEG (quality 95) of a soft background with sharp shapes of all sizes; no noise."""
    image = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(width * height // 80):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), 2 + rng.exponential(width / 150)
        colour = tuple((np.array(image.getpixel((int(x), int(y)))) + rng.integers(-60, 60, 3)).clip(0, 255).tolist())
        draw.ellipse((x - r, y - r * 0.7, x + r, y + r * 0.7), fill=colour)
    buffer = io.BytesIO()
    image.filter(ImageFilter.GaussianBlur(0.6)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def rate(work: Callable[[int], object], seconds: float) -> float:
    """Calls per second of processor time, over at least `seconds`, after a first that does not count."""
    work(0)
    start, count = time.process_time(), 0
    while (spent := time.process_time() - start) < seconds:
        work(count)
        count += 1
    return count / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=384, help="side of the pixels in training")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    plain, train = EvalTransform(options.size), TrainTransform(options.size)
    machine = {
        "command": " ".join(["python -m benchmarks.decode", *sys.argv[1:]]),
        "cpu": processor_name(),
        "pillow": Image.__version__,
        "libjpeg_turbo": features.check_feature("libjpeg_turbo"),
        "size": options.size,
    }
    print("; ".join(f"{name} {value}" for name, value in machine.items()), "\nimages/s on one core:")
    print(f"{'photograph':>12}{'kB':>6}{'decoding':>10}{'decode':>9}{'+ resize':>10}{'+ RandAugment':>15}")
    results = []
    for width, height in PHOTOGRAPHS:
        rng = np.random.default_rng(0)
        files = [photograph(width, height, rng) for _ in range(4)]
        for kind, at_least in (("full", 0), ("fast", 2 * options.size)):

            def image(i: int, files: list[bytes] = files, at_least: int = at_least) -> Image.Image:
                return open_image(files[i % len(files)], at_least=at_least)

            row = {
                "width": width,
                "height": height,
                "kilobytes": round(np.mean([len(file) for file in files]) / 1000),
                "decoding": kind,
                "decode": rate(image, options.seconds),
                "resize": rate(lambda i, image=image: plain(image(i)), options.seconds),
                "randaugment": rate(lambda i, image=image: train(image(i), np.random.default_rng(i)), options.seconds),
            }
            results.append(row)
            print(
                f"{f'{width}x{height}':>12}{row['kilobytes']:>6}{kind:>10}{row['decode']:>9.0f}"
                f"{row['resize']:>10.0f}{row['randaugment']:>15.0f}"
            )
    if options.json:
        options.json.write_text(json.dumps(machine | {"images_per_second": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
