"""Training batches in an order, and with chances, that are functions of the seed alone.

Everything random about a sample is a function of (seed, epoch, entry) and the order of entries one of (seed,
epoch). So batches do not depend on the number of workers or ranks, and a resumed run continues exactly.
"""

import atexit
import hashlib
import multiprocessing
import os
import re
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader

from fiber_cli.data.source import BadSample, EachCaption, Source, sample_id, some_captions
from fiber_cli.data.text import encode_one, mask_tokens
from fiber_cli.data.transforms import EvalTransform, TrainTransform
from fiber_cli.errors import UserError

_ORDER, _SAMPLE = 0, 1  # separate streams of random numbers
_MAX_REPLACEMENTS = 10
_SIDES = re.compile(r"\b(left|right)", re.IGNORECASE)


def caption_view(sources: Sequence[Source], captions: str) -> list[Source]:
    """Samples are images, used with one of their captions (`random`), or (image, caption) pairs (`each`)."""
    return list(map(EachCaption, sources)) if captions == "each" else list(sources)


class Mixture:
    """Several sources as one list of entries per epoch.

    weights: how often an epoch holds each source: 1 once, 2 twice, 0.5 a fresh random half of it. An entry
    is repetition · total + index, `total` being the number of samples of all sources, so that the
    repetitions of a sample within an epoch are augmented differently.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float], seed: int):
        self.sources, self.seed = list(sources), seed
        self._sizes = [len(source) for source in self.sources]
        self._ends = np.cumsum(self._sizes)
        self._counts = [round(size * weight) for size, weight in zip(self._sizes, weights, strict=True)]
        for source, weight, count in zip(sources, weights, self._counts):
            if count < 1:
                raise UserError(f"data.train: weight {weight} leaves no sample of {source.name}; raise it")

    def __len__(self) -> int:
        """Entries per epoch."""
        return sum(self._counts)

    def steps(self, global_batch: int) -> int:
        """Whole batches in an epoch; `UserError` where there is none."""
        if global_batch > len(self):
            raise UserError(
                f"runtime.global_batch: {global_batch} is more than the {len(self)} samples of an epoch; "
                "lower it, or raise the weights of data.train"
            )
        return len(self) // global_batch

    def epoch(self, number: int) -> np.ndarray:
        """The entries of an epoch, int64: the sources' own orders, interleaved at random."""
        rng = np.random.default_rng([_ORDER, self.seed, number])
        total, orders = int(self._ends[-1]), []
        for source, size, end, count in zip(self.sources, self._sizes, self._ends, self._counts):
            for repetition in range(-(-count // size)):
                order = source.order(rng)
                wanted = min(size, count - repetition * size)
                if wanted < size:
                    order = order[np.sort(rng.choice(size, wanted, replace=False))]
                orders.append(repetition * total + end - size + order)
        turn = rng.permutation(np.repeat(np.arange(len(self.sources)), self._counts))
        entries = np.empty(len(turn), dtype=np.int64)
        entries[np.argsort(turn, kind="stable")] = np.concatenate(orders)
        return entries

    def locate(self, entry: int) -> tuple[int, int]:
        """The number of an entry's source, and the sample's number in it."""
        index = entry % int(self._ends[-1])
        which = int(np.searchsorted(self._ends, index, side="right"))
        return which, index - int(self._ends[which]) + self._sizes[which]


class StepSampler:
    """This rank's micro-batches, lists of (epoch, entry), of the steps from `start_step` up to `total_steps`.

    An epoch has floor(entries / global_batch) steps; the rest of its entries is dropped, other ones in each
    epoch. Micro-batch m of rank r takes entries [(m · world + r) · micro_batch, … + micro_batch) of the
    step's. `UserError` where the batch is larger than the data.
    """

    def __init__(
        self, mixture: Mixture, global_batch: int, micro_batch: int, rank: int, world: int,
        start_step: int, total_steps: int,
    ):  # fmt: skip
        assert global_batch % (micro_batch * world) == 0, "see RuntimeSettings.micro_steps"
        self.mixture, self.global_batch, self.micro_batch = mixture, global_batch, micro_batch
        self.rank, self.stride = rank, micro_batch * world
        self.steps = range(start_step, total_steps)
        self.steps_per_epoch = mixture.steps(global_batch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        current, entries = -1, np.empty(0)
        for step in self.steps:
            epoch, place = divmod(step, self.steps_per_epoch)
            if epoch != current:
                current, entries = epoch, self.mixture.epoch(epoch)
            first = place * self.global_batch + self.rank * self.micro_batch
            for start in range(first, (place + 1) * self.global_batch, self.stride):
                yield [(epoch, entry) for entry in entries[start : start + self.micro_batch].tolist()]


class TrainSet(torch.utils.data.Dataset):
    """(epoch, entry) to one training sample as `reader(source, i, rng)` makes it; `collate` makes the batch.

    A sample that cannot be used is recorded in `bad` and replaced by another of its source.
    """

    def __init__(self, mixture: Mixture, reader: Callable[[Source, int, np.random.Generator], dict]):
        self.mixture, self.reader = mixture, reader

    def __getitem__(self, key: tuple[int, int]) -> dict:
        epoch, entry = key
        rng = np.random.default_rng([_SAMPLE, self.mixture.seed, epoch, entry])
        which, i = self.mixture.locate(entry)
        source = self.mixture.sources[which]
        bad: list[tuple[str, str]] = []
        while True:
            try:
                return self.reader(source, i, rng) | {"bad": bad}
            except BadSample as error:
                bad.append((sample_id(source, i), str(error)))
                if len(bad) == _MAX_REPLACEMENTS:
                    raise UserError(f"{len(bad)} samples in a row cannot be used:{_listed(bad)}") from None
                i = int(rng.integers(len(source)))


class TextReader:
    """What readers of images with a text share. Samples have `ids` int64 and `mask` bool (L,)."""

    def __init__(self, tokenizer, text_length: int, image_size: int, augment: str):
        self.tokenizer, self.text_length = tokenizer, text_length
        transforms = {"none": EvalTransform, "randaugment": TrainTransform}
        self.transform, self.least = transforms[augment](image_size), 2 * image_size

    def sample(self, source: Source, i: int, text: str, pixels: torch.Tensor) -> dict:
        """pixels: of the image or the images of sample i."""
        encoded = encode_one(self.tokenizer, text, self.text_length)
        return {"pixels": pixels, **encoded, "sample_ids": sample_id(source, i)}


class CaptionReader(TextReader):
    """One image with one of its captions, for coarse pre-training, retrieval and captioning.

    Gives `pixels` uint8 (3, H, W), the text, and `image_key` int64, equal for equal images; with `mlm_probability` also
    `mlm_ids` and `mlm_labels` (L,); with `references` all captions of the image as a tuple.
    """

    def __init__(
        self, tokenizer, text_length: int, image_size: int, augment: str, mlm_probability: float | None = None,
        references: bool = False,
    ):  # fmt: skip
        super().__init__(tokenizer, text_length, image_size, augment)
        self.mlm_probability, self.references = mlm_probability, references

    def __call__(self, source: Source, i: int, rng: np.random.Generator) -> dict:
        captions = some_captions(source, i)
        caption = captions[rng.integers(len(captions))]
        pixels = self.transform(source.image(i, self.least), rng, flip=not speaks_of_sides(caption))
        sample = self.sample(source, i, caption, pixels)
        if self.mlm_probability:
            masked = mask_tokens(sample["ids"], self.tokenizer, self.mlm_probability, rng)
            sample["mlm_ids"], sample["mlm_labels"] = masked
        if self.references:
            sample["references"] = captions
        key = hashlib.blake2b(sample["sample_ids"].encode(), digest_size=8).digest()
        return sample | {"image_key": torch.tensor(int.from_bytes(key, signed=True))}


def speaks_of_sides(text: str) -> bool:
    """Whether mirroring the picture could make the text false."""
    return bool(_SIDES.search(text))


def collate(samples: list[dict]) -> dict:
    """A batch: tensors stacked, other values in lists, but `bad` as one list of the replaced samples as (id, reason)
    and `truncated` as how many texts were cut."""
    columns = {name: [sample[name] for sample in samples] for name in samples[0]}
    batch = {name: torch.stack(column) if torch.is_tensor(column[0]) else column for name, column in columns.items()}
    return batch | {
        "bad": [pair for pairs in columns["bad"] for pair in pairs],
        "truncated": sum(columns["truncated"]),
    }


def make_loader(dataset, workers: int, **options) -> DataLoader:
    """A loader with our workers: one thread each, deaf to the signals that ask the run to stop and save."""
    return DataLoader(
        dataset,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # otherwise starting workers draws from the run's own generator
        **options,
    )


def _start_worker(worker: int) -> None:
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Schedulers signal every process of a job, while the main process still needs its batches to finish the
    # step. Only a second SIGTERM ends a worker; the loader's own clean-up and ours at exit repeat it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: signal.signal(number, lambda *_: os._exit(0)))


def _end_workers() -> None:
    """End workers whose loader an error report still holds: the interpreter would wait for them, and tell them once."""
    for worker in multiprocessing.active_children():
        while worker.daemon and worker.is_alive():
            worker.terminate()
            worker.join(0.1)


atexit.register(_end_workers)


def train_loader(sampler: StepSampler, reader: Callable, workers: int, collate_fn: Callable) -> Iterator[dict]:
    """The sampler's micro-batches as `collate_fn` makes them, in order; what a worker has to tell the user comes
    without the worker's traceback."""
    data = TrainSet(sampler.mixture, reader)
    try:
        yield from make_loader(data, workers, batch_sampler=sampler, collate_fn=collate_fn)
    except UserError as error:
        raise UserError(str(error).rsplit("UserError: ", 1)[-1].strip()) from None


class BadCounter:
    """Counts used and replaced samples; ends the run when more than `max_rate` of them were bad.

    The rate is taken of at least 1,000 samples, so that a single bad one at the start does not end a run.
    """

    def __init__(self, max_rate: float):
        self.max_rate, self.seen, self.bad = max_rate, 0, 0
        self.recent: deque[tuple[str, str]] = deque(maxlen=5)

    def update(self, batch: dict) -> None:
        """Count a batch; raises `UserError` past the rate, naming the last bad samples."""
        self.seen += len(batch["sample_ids"])
        self.bad += len(batch["bad"])
        self.recent.extend(tuple(pair) for pair in batch["bad"])
        if self.bad > self.max_rate * max(self.seen, 1000):
            raise UserError(
                f"{self.bad} bad samples among {self.seen} are more than data.max_bad_rate {self.max_rate}; "
                f"mend the data or raise the rate. The last ones:{_listed(self.recent)}"
            )

    def state_dict(self) -> dict:
        return {"seen": self.seen, "bad": self.bad}

    def load_state_dict(self, state: dict) -> None:
        self.seen, self.bad = state["seen"], state["bad"]


def _listed(bad: Sequence[tuple[str, str]]) -> str:
    return "".join(f"\n  {name}: {reason}" for name, reason in bad)
