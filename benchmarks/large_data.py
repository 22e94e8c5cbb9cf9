"""The start of a large run, and a search in a large folder: time, memory and reads, of this version and another.

    python -m benchmarks.large_data --json benchmarks/results/large_data.json
    python -m benchmarks.large_data --before ../earlier              # beside a git worktree of another commit
    python -m benchmarks.large_data --images 3000 --samples 2000 --vectors 1000

Three things are made and measured, each in processes of its own:

- `annotations`: a detection file in COCO's form of many images and boxes. Two ranks open it at once, each with two
  workers, as of a training, that then read boxes in random order: seconds until it is open, the most memory that a rank
  had meanwhile, and what each process has for itself alone afterwards (Uss) and its part of what is shared (Pss). Then
  the same again.
- `shards`: samples in tar shards, which four ranks open at once: read calls of each by the kernel's count, and bytes.
- `search`: a query among many vectors: the best 50 by sorting all of them and by sorting those alone, and the index of
  as many pictures, written and read, in float32 and float16.

Linux only: memory and reads are what /proc says. --parts names some of the three. --folder keeps what is made. --apart
starts the ranks of the other version one after the other, which share nothing, where there is no memory for both.
"""

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parents[1]
RANKS_OF_ANNOTATIONS, RANKS_OF_SHARDS = 2, 4
CATEGORIES = 80
SAMPLES_A_SHARD = 10_000
BEST = 50
WIDTH = 768
MIB = 2**20


# What is made.


def make_annotations(folder: Path, images: int, boxes: int) -> Path:
    """The file, written piece by piece, and one picture for the probes of its folder."""
    file = folder / f"instances-{images}-{boxes}.json"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    if file.is_file():
        return file
    rng = random.Random(0)
    pieces = []
    for number in range(images):
        name = f"{number:012d}.jpg"
        if number % (images // 32) == 0:
            (folder / "images" / name).touch()
        image = {"id": number, "file_name": name, "width": 640, "height": 480, "license": 1, "date_captured": "2013"}
        pieces.append(json.dumps(image | {"coco_url": f"http://images.cocodataset.org/train2017/{name}"}))
    categories = [{"id": number, "name": f"thing {number}"} for number in range(1, CATEGORIES + 1)]
    temporary = file.with_suffix(".part")
    with temporary.open("w") as out:
        out.write('{"info": {}, "images": [' + ",\n".join(pieces) + '], "annotations": [')
        for number in range(boxes):
            x, y, w, h = (round(rng.uniform(0, 300), 2) for _ in range(4))
            box = {"id": number, "image_id": rng.randrange(images), "category_id": rng.randrange(1, CATEGORIES + 1)}
            outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            box |= {"segmentation": outline, "area": round(w * h, 2), "bbox": [x, y, w, h], "iscrowd": 0}
            out.write((",\n" if number else "") + json.dumps(box))
        out.write('], "categories": ' + json.dumps(categories) + "}")
    temporary.rename(file)
    return file


def make_shards(folder: Path, samples: int) -> Path:
    """Shards of pictures, texts and JSON as img2dataset writes them; the pictures are no real ones, nobody looks."""
    shards = folder / f"shards-{samples}"
    shards.mkdir(parents=True, exist_ok=True)
    for first in range(0, samples, SAMPLES_A_SHARD):
        file = shards / f"{first // SAMPLES_A_SHARD:05d}.tar"
        if file.is_file():
            continue
        temporary = file.with_suffix(".part")
        with tarfile.open(temporary, "w") as tar:
            for number in range(first, min(samples, first + SAMPLES_A_SHARD)):
                described = json.dumps(
                    {"key": f"{number:09d}", "url": f"http://{number}", "caption": "a text"}
                ).encode()
                for ending, content in (("jpg", bytes(2500)), ("txt", b"a text"), ("json", described)):
                    info = tarfile.TarInfo(f"{number:09d}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        temporary.rename(file)
    return shards


# What a process of either version measures. It uses of the program what both have.


def peak_memory() -> float:
    """The most that this process has had, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM")


def reads() -> dict[str, int]:
    """Read calls of this process, and their bytes."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return {"read_calls": int(counts["syscr"]), "read_bytes": int(counts["rchar"])}


def opened(settings: Any) -> tuple[Any, dict[str, float]]:
    """A source, and the seconds that opening it took; settings: of a source."""
    from fiber_cli.data.sources import open_source

    began, began_cpu = time.perf_counter(), time.process_time()
    source = open_source(settings)
    return source, {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - began_cpu}


def annotations_of_a_rank(file: Path) -> dict[str, Any]:
    # Beside this script, which is first where modules are looked for, whatever version the other rooms are of.
    from box_reading import WORKERS, Boxes, as_they_are, own_memory  # type: ignore[import-not-found]

    from fiber_cli.config.resolve import resolve_source
    from fiber_cli.data.loader import make_loader
    from fiber_cli.data.sources.coco import CocoSource  # noqa: F401 (libraries are no part of what is measured)
    from fiber_cli.distributed.group import init_from_env

    settings = resolve_source(f"{{kind: coco, json: {file}, images: {file.parent / 'images'}}}")
    before = own_memory()
    source, seconds = opened(settings)
    measured: dict[str, Any] = {
        **seconds,
        "peak_mib": peak_memory(),
    }
    init_from_env(always=True)
    batches = make_loader(Boxes(source), WORKERS, batch_size=1, collate_fn=as_they_are)
    measured["workers"] = [each for batch in batches for each in batch]
    return measured | {"before_mib": before["uss_mib"], "rank": own_memory(), "samples": len(source)}


def shards_of_a_rank(folder: Path) -> dict[str, Any]:
    from fiber_cli.config.resolve import resolve_source
    from fiber_cli.data.sources.webdataset import WebDatasetSource  # noqa: F401

    settings = resolve_source(f"{{kind: webdataset, shards: {folder}}}")
    before = reads()
    source, seconds = opened(settings)
    measured: dict[str, Any] = {
        **seconds,
        "samples": len(source),
    }
    after = reads()
    return measured | {name: after[name] - before[name] for name in after}


def sorting(vectors: int, queries: int = 20) -> dict[str, float]:
    """Milliseconds a query to find the best, by sorting these alone and by sorting all."""
    from fiber_cli.tasks.retrieval.pairs import best_columns

    scores = np.random.default_rng(0).standard_normal((queries, vectors)).astype(np.float32)
    began = time.perf_counter()
    best = best_columns(scores, BEST)
    seconds = time.perf_counter() - began
    began = time.perf_counter()
    sorted_fully = np.stack([np.argsort(-row, kind="stable")[:BEST] for row in scores])
    fully = time.perf_counter() - began
    assert np.array_equal(best, sorted_fully)
    return {"best_ms": 1000 * seconds / queries, "all_sorted_ms": 1000 * fully / queries}


def index_of(vectors: int) -> dict[str, Any]:
    """An index of so many pictures, in float32 and float16: its size, seconds of writing and opening it, milliseconds
    of the cosines of a query, and how far they are from those of the features that were written."""
    from fiber_cli.inference.index_file import Index, read_index, write_index
    from fiber_cli.inference.search import similarities

    rng = np.random.default_rng(0)
    features = rng.standard_normal((vectors, WIDTH), dtype=np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    stamps = {f"folder/{number:09d}.jpg": (number, number << 30) for number in range(vectors)}
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in (np.float32, np.float16):
            file = Path(folder, "index")
            began = time.perf_counter()
            write_index(file, Index(features.astype(dtype), stamps), "f")
            written = time.perf_counter()
            index = read_index(file, "f")
            opened = time.perf_counter()
            cosines = similarities(features[:1], index)
            asked = time.perf_counter()
            measured[np.dtype(dtype).name] = {
                "mib": file.stat().st_size / MIB,
                "write_seconds": written - began,
                "open_seconds": opened - written,
                "cosines_ms": 1000 * (asked - opened),
                "largest_difference": float(np.abs(cosines - features[:1] @ features.T).max()),
            }
    return measured


def search(vectors: int) -> dict[str, Any]:
    return {"sorting": sorting(vectors), "index": index_of(vectors)}


MEASURES = {"annotations": annotations_of_a_rank, "shards": shards_of_a_rank}


# The processes.


def ranks(tree: Path, part: str, made: Path, count: int, cache: Path, *, apart: bool) -> list[dict[str, Any]]:
    """What so many processes of a version measure that begin at once, or one after the other."""
    environment = os.environ | {"PYTHONPATH": str(tree), "XDG_CACHE_HOME": str(cache), "FIBER_CACHE": str(cache)}
    processes = []
    for rank in range(count):
        command = [sys.executable, str(Path(__file__).resolve()), "--as-rank", part, str(made)]
        started = subprocess.Popen(command, env=environment | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        processes.append(started)
        if apart:
            started.wait()
    measured = []
    for process in processes:
        output, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{part} of {tree}: a rank ended with {process.returncode}")
        measured.append(json.loads(output.splitlines()[-1]))
    return measured


def starts(tree: Path, part: str, made: Path, count: int, *, apart: bool) -> dict[str, Any]:
    """A first start and a later one, with an empty cache in front of the first."""
    with tempfile.TemporaryDirectory() as cache:
        first = ranks(tree, part, made, count, Path(cache), apart=apart)
        return {"first": first, "later": ranks(tree, part, made, count, Path(cache), apart=apart)}


def shown(version: str, part: str, measured: dict[str, Any]) -> None:
    """The figures in a few lines."""
    for start, of_ranks in measured.items():
        seconds = max(each["seconds"] for each in of_ranks)
        cpu = "/".join(f"{each['cpu_seconds']:.1f}" for each in of_ranks)
        line = f"{part:12} {version:7} {start:6} {seconds:8.2f} s, CPU seconds {cpu}"
        if part == "annotations":
            workers = [f"{worker['uss_mib']:.0f}" for each in of_ranks for worker in each["workers"]]
            own = [f"{each['rank']['uss_mib']:.0f}" for each in of_ranks]
            peak = [f"{each['peak_mib']:.0f}" for each in of_ranks]
            line += f"  MiB: most {'/'.join(peak)}, ranks {'/'.join(own)}, workers {'/'.join(workers)}"
        else:
            calls = [f"{each['read_calls']:,}" for each in of_ranks]
            line += f"  read calls {' '.join(calls)}, {sum(each['read_bytes'] for each in of_ranks) / MIB:.0f} MiB"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=300_000)
    parser.add_argument("--boxes", type=int, help="default: ten an image")
    parser.add_argument("--samples", type=int, default=200_000, help="in shards")
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--before", type=Path, help="a git worktree of another commit")
    parser.add_argument("--apart", action="store_true", help="its ranks one after the other")
    parser.add_argument("--parts", default="annotations,shards,search")
    parser.add_argument("--folder", type=Path, help="where what is made stays")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--as-rank", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_rank:
        part, made = arguments.as_rank
        print(json.dumps(MEASURES[part](Path(made))))
        return
    versions = {"before": arguments.before.resolve()} if arguments.before else {}
    versions |= {"now": HERE}
    report: dict[str, Any] = {"images": arguments.images, "boxes": arguments.boxes or 10 * arguments.images}
    report |= {"samples": arguments.samples, "vectors": arguments.vectors, "apart": arguments.apart}
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        for part in arguments.parts.split(","):
            if part == "search":
                report[part] = search(arguments.vectors)
                print(json.dumps(report[part], indent=1))
                continue
            report[part] = {}
            for version, tree in versions.items():
                if part == "annotations":
                    made, count = make_annotations(folder, report["images"], report["boxes"]), RANKS_OF_ANNOTATIONS
                elif part == "shards":
                    made, count = make_shards(folder, arguments.samples), RANKS_OF_SHARDS
                apart = arguments.apart and version == "before"
                measured = starts(tree, part, made, count, apart=apart)
                report[part][version] = measured
                shown(version, part, measured)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
