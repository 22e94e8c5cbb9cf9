"""Fusion scores of image-text pairs at the price of their fused tops: one stem per image and per text.

Images are shared out over the ranks; a rank takes its images one batch after another, and keeps the stems of all texts.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from fiber_cli.distributed import collectives as dist
from fiber_cli.tasks.evalset import ImageSet, TextSet
from fiber_cli.data.images import normalize
from fiber_cli.errors import UserError
from fiber_cli.model.fusion import ImageStem, TextStem
from fiber_cli.tasks.prediction import precision_context, to_device

#: Bytes of text stems that a rank holds in memory; more of them lie in a file.
MEMORY = 4 << 30
#: Seconds between two lines of progress where there is no terminal.
REPORT_EVERY = 30.0


class PairScores(NamedTuple):
    """`scores`: float32 (images, texts), NaN for pairs that were not wanted or whose image cannot be read. `bad`:
    (id, reason) of those images; `truncated`: how many texts were cut."""

    scores: np.ndarray
    bad: list[tuple[str, str]]
    truncated: int


class TextStems:
    """Text stems by number, float32, in memory if they fit in `memory` bytes, else in a file in `folder` that has no
    name, so that it goes with the process. UserError where the disk has no room for it."""

    def __init__(self, count: int, length: int, width: int, *, memory: int, folder: Path | None):
        shape, size = (count, length, width), 4 * count * length * width
        self.lengths = np.zeros(count, dtype=np.int64)
        self.spilled = size > memory
        if self.spilled:
            try:
                file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
                # A hole in the file would end the process when the disk is full, not raise.
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError as error:
                raise UserError(
                    f"no room for {size / 2**30:.1f} GiB of text stems in {folder or tempfile.gettempdir()} "
                    f"({error.strerror}): free some space, or write the results to another disk"
                ) from None
            self._rows = np.memmap(file, np.float32, "r+", shape=shape)
        else:
            self._rows = np.empty(shape, dtype=np.float32)

    def put(self, numbers: Sequence[int], stem: TextStem) -> None:
        """Keep the real tokens of stems (B, L, C)."""
        self.lengths[numbers] = stem.mask.sum(1).cpu()
        for number, tokens in zip(numbers, stem.tokens.float().cpu().numpy()):
            self._rows[number, : self.lengths[number]] = tokens[: self.lengths[number]]

    def get(self, numbers: np.ndarray, device: torch.device) -> TextStem:
        """Stems padded to the longest of them."""
        lengths = torch.from_numpy(self.lengths[numbers])
        rows = [torch.from_numpy(self._rows[number, : self.lengths[number]]) for number in numbers]
        tokens = pad_sequence(rows, batch_first=True)
        mask = torch.arange(tokens.shape[1])[None] < lengths[:, None]
        return TextStem(tokens.to(device), mask.to(device))


class Journal:
    """Scores on disk, so that a run that was killed goes on where it was. Every rank appends to a file of its own in
    `folder`; all files are read, so the number of ranks may change.

    `key` names model and data: scores with another key are thrown away, which is said.
    """

    def __init__(self, folder: Path, key: str):
        self.folder, named = folder, folder / "key"
        if dist.is_main():
            if folder.is_dir() and not (named.is_file() and named.read_text(encoding="utf-8") == key):
                print(f"{folder}: scores of another checkpoint or other data; starting afresh", file=sys.stderr)
                shutil.rmtree(folder)
            folder.mkdir(parents=True, exist_ok=True)
            named.write_text(key, encoding="utf-8")
        dist.gather_objects(None)

    def read(self, first: int, scores: np.ndarray) -> None:
        """Put what is on disk into `scores` (images, texts), whose first row is image `first`; then be ready to
        append."""
        own = self.folder / f"{dist.rank()}.bin"
        for file in self.folder.glob("*.bin"):
            words, at = np.fromfile(file, dtype=np.int32), 0
            # A kill may have cut the last record.
            while at + 2 <= len(words) and (end := at + 2 + 2 * int(words[at + 1])) <= len(words):
                image, count = words[at : at + 2]
                if first <= image < first + len(scores):
                    scores[image - first, words[at + 2 : at + 2 + count]] = words[end - count : end].view(np.float32)
                at = end
            if file == own:
                os.truncate(file, 4 * at)
        dist.gather_objects(None)
        self._stream = own.open("ab")

    def append(self, image: int, texts: np.ndarray, scores: np.ndarray) -> None:
        head = np.array([image, len(texts), *texts], dtype=np.int32)
        self._stream.write(head.tobytes() + scores.astype(np.float32).tobytes())
        self._stream.flush()

    def remove(self) -> None:
        """The run is complete."""
        self._stream.close()
        dist.gather_objects(None)
        if dist.is_main():
            shutil.rmtree(self.folder)


def progress_of(total: int) -> tqdm:
    """Pairs done by the first rank: a bar on a terminal, else a line now and then."""
    shown = {"leave": False, "dynamic_ncols": True}
    if not sys.stderr.isatty():
        line = "pairs {n_fmt}/{total_fmt}  {rate_noinv_fmt}  ETA {remaining}\n"
        shown = {"bar_format": line, "mininterval": REPORT_EVERY, "maxinterval": 1e9, "miniters": 1}
    return tqdm(total=total, unit=" pairs", disable=not dist.is_main(), **shown)


def match_scores(task: nn.Module, image: ImageStem, text: TextStem) -> Tensor:
    """The "matched" logit, float32 (pairs,): of each pair, or of K texts for each image, side by side."""
    return task.match(image, text, pooled=True)[:, 1].float()


@torch.no_grad()
def score_pairs(
    task: nn.Module,
    images: ImageSet,
    texts: TextSet,
    wanted: Sequence[np.ndarray],
    *,
    batch_size: int,
    workers: int,
    precision: str = "fp32",
    folder: Path | None = None,
    fingerprint: str = "",
    memory: int = MEMORY,
) -> PairScores:
    """Fusion scores of each image with the texts `wanted` for it (int numbers), the same on all ranks.

    folder: where finished scores are kept until all are there, for a run that is killed and started again with the
    same `fingerprint` of the weights; None keeps none. memory: see `MEMORY`.
    """
    if getattr(task, "itm", None) is None:
        raise UserError(
            "fusion needs an ITM head (task.itm > 0), which this checkpoint lacks: name one with --itm-checkpoint"
        )
    device, rank, world = next(task.parameters()).device, dist.rank(), dist.world_size()
    was_training = task.training
    task.eval()
    first, end = (len(images) * r // world for r in (rank, rank + 1))
    scores = np.full((end - first, len(texts)), np.nan, dtype=np.float32)
    journal = None
    if folder is not None:
        named = [fingerprint, precision, images.ids, texts.texts, texts.text_length]
        key = hashlib.blake2b(repr(named).encode(), digest_size=16).hexdigest()
        journal = Journal(Path(folder) / ".pairs", key)
        journal.read(first, scores)
    left = [row[np.isnan(scores[n, row])] for n, row in enumerate(wanted[first:end])]
    known = sum(dist.gather_objects(sum(map(len, wanted[first:end])) - sum(map(len, left))))
    if known and dist.is_main():
        print(f"{known} pairs were scored before the run was stopped", file=sys.stderr)
    stems = TextStems(
        len(texts), texts.text_length, task.encoder.config.text.hidden, memory=memory, folder=journal and journal.folder
    )
    truncated, bad, progress = 0, [], progress_of(sum(map(len, left)))
    options = {"batch_size": batch_size, "workers": workers}
    with precision_context(precision, device):
        for batch in texts.loader(rank=0, world=1, **options):
            truncated += batch["truncated"]
            on_device = to_device(batch, device)
            stems.put(batch["index"].tolist(), task.encoder.text_stem(on_device["ids"], on_device["mask"]))
        for batch in images.loader(rank=rank, world=world, **options):
            bad += batch["bad"]
            if not len(batch["index"]):
                continue
            maps = task.encoder.image_stem(normalize(batch["pixels"].to(device))).map
            # Of equal length, texts need little padding.
            rows = [left[n - first] for n in batch["index"].tolist()]
            rows = [row[np.argsort(stems.lengths[row], kind="stable")] for row in rows]
            for group in grouped(rows, batch_size):
                of_texts = stems.get(np.concatenate([part for _, part in group]), device)
                found = match_scores(task, ImageStem(maps[_image_rows(group)]), of_texts).cpu()
                for (place, part), own in zip(group, found.split([len(part) for _, part in group])):
                    image = int(batch["index"][place])
                    scores[image - first, part] = own
                    if journal:
                        journal.append(image, part, own.numpy())
                progress.update(len(found))
    progress.close()
    task.train(was_training)
    shares = dist.gather_objects((scores, bad))
    if journal:
        journal.remove()
    return PairScores(np.concatenate([part for part, _ in shares]), [b for _, part in shares for b in part], truncated)


def grouped(rows: Iterable[np.ndarray], size: int) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Batches of at most `size` pairs as (image row, its texts), in order: of one image where it has enough texts."""
    group: list[tuple[int, np.ndarray]] = []
    pairs = 0
    for row, texts in enumerate(rows):
        for start in range(0, len(texts), size):
            part = texts[start : start + size]
            if pairs + len(part) > size:
                yield group
                group, pairs = [], 0
            group.append((row, part))
            pairs += len(part)
    if group:
        yield group


def _image_rows(group: list[tuple[int, np.ndarray]]) -> list[int]:
    """Each image once where all have as many texts, which then share its first fused block; else once a pair."""
    counts = {len(texts) for _, texts in group}
    return [row for row, texts in group for _ in range(1 if len(counts) == 1 else len(texts))]
