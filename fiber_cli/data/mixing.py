"""Training samples in an order, and with chances, that are functions of the seed alone.

Everything random about a sample is a function of (seed, epoch, entry) and the order of entries one of (seed,
epoch). So batches do not depend on the number of workers or ranks, and a resumed run continues exactly.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from torch.utils.data import Dataset

from fiber_cli.data.readers import PictureSize, Reader, Sample
from fiber_cli.data.records import Size
from fiber_cli.data.shapes import order_by_shape
from fiber_cli.data.source import BadSample, Source, sample_id
from fiber_cli.errors import UserError

_ORDER, _SAMPLE = 0, 1  # separate streams of random numbers
_MAX_REPLACEMENTS = 10

#: From where to where of an epoch, 0 to 1.
Interval = tuple[float, float]
_WHOLE: Interval = (0.0, 1.0)


class Mixture:
    """Several sources as one list of entries per epoch.

    weights: how often an epoch holds each source: 1 once, 2 twice, 0.5 a fresh random half of it. An entry
    is repetition · total + index, `total` being the number of samples of all sources, so that the
    repetitions of a sample within an epoch are augmented differently.
    during: from where to where of an epoch, 0 to 1, each source's samples are spread; None = all over it.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        weights: Sequence[float],
        seed: int,
        during: Sequence[Interval] | None = None,
    ):
        self.sources = list(sources)
        self.seed = seed
        self._sizes = [len(source) for source in self.sources]
        self._ends = np.cumsum(self._sizes)
        self._total = sum(self._sizes)
        self._counts: list[int] = []
        for source, size, weight in zip(self.sources, self._sizes, weights, strict=True):
            count = round(size * weight)
            if count < 1:
                raise UserError(f"data.train: weight {weight} leaves no sample of {source.name}; raise it")
            self._counts.append(count)
        self._during = [_WHOLE] * len(self.sources) if during is None else list(during)
        for source, (begin, end) in zip(self.sources, self._during, strict=True):
            if not 0 <= begin < end <= 1:
                raise UserError(
                    f"data.train: during [{begin}, {end}] of {source.name}: give where in an epoch its samples begin "
                    "and end, such as [0, 0.2]"
                )

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
        orders: list[np.ndarray] = []
        for which in range(len(self.sources)):
            orders.extend(self._repetitions(which, rng))
        turns = self._turns(rng)
        entries = np.empty(len(turns), dtype=np.int64)
        entries[np.argsort(turns, kind="stable")] = np.concatenate(orders)
        return entries

    def _turns(self, rng: np.random.Generator) -> np.ndarray:
        """The number of the source of each entry of an epoch, int64."""
        numbers = np.repeat(np.arange(len(self.sources)), self._counts)
        if all(tuple(interval) == _WHOLE for interval in self._during):
            return rng.permutation(numbers)
        times = []
        for (begin, end), count in zip(self._during, self._counts, strict=True):
            times.append(rng.uniform(begin, end, count))
        return numbers[np.argsort(np.concatenate(times), kind="stable")]

    def _repetitions(self, which: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """A source's entries in an epoch, in its own order: all of them as often as they fit, then a random part."""
        size = self._sizes[which]
        count = self._counts[which]
        first = self._ends[which] - size
        for repetition in range(-(-count // size)):
            order = self.sources[which].order(rng)
            wanted = min(size, count - repetition * size)
            if wanted < size:
                chosen = rng.choice(size, wanted, replace=False)
                order = order[np.sort(chosen)]
            yield repetition * self._total + first + order

    def chance(self, epoch: int, entry: int) -> np.random.Generator:
        """All that is random about an entry's sample is drawn from it."""
        return np.random.default_rng([_SAMPLE, self.seed, epoch, entry])

    def locate(self, entry: int) -> tuple[int, int]:
        """The number of an entry's source, and the sample's number in it."""
        index = entry % self._total
        which = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[which]) - self._sizes[which]
        return which, index - first


class StepSampler:
    """This rank's micro-batches, lists of (epoch, entry), of the steps from `start_step` up to `total_steps`.

    An epoch has floor(entries / global_batch) steps; the rest of its entries is dropped, other ones in each
    epoch. Micro-batch m of rank r takes entries [(m · world + r) · micro_batch, … + micro_batch) of the
    step's; picture_size: they are put in order by the shapes that their pictures will have, see `PictureSize`.
    `UserError` where the batch is larger than the data.
    """

    def __init__(
        self,
        mixture: Mixture,
        global_batch: int,
        micro_batch: int,
        rank: int,
        world: int,
        start_step: int,
        total_steps: int,
        picture_size: PictureSize | None = None,
    ):
        assert global_batch % (micro_batch * world) == 0, "see RuntimeSettings.micro_steps"
        self.mixture = mixture
        self.global_batch = global_batch
        self.micro_batch = micro_batch
        self.rank = rank
        self.stride = micro_batch * world
        self.steps = range(start_step, total_steps)
        self.steps_per_epoch = mixture.steps(global_batch)
        self.picture_size = picture_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        current_epoch = -1
        entries = np.empty(0)
        for step in self.steps:
            epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
            if epoch != current_epoch:
                current_epoch = epoch
                entries = self.mixture.epoch(epoch)
            batch = entries[step_of_epoch * self.global_batch : (step_of_epoch + 1) * self.global_batch]
            if self.picture_size is not None and self.micro_batch < self.global_batch:
                batch = batch[order_by_shape(self._sizes(epoch, batch, self.picture_size))]
            for start in range(self.rank * self.micro_batch, self.global_batch, self.stride):
                micro_batch = batch[start : start + self.micro_batch]
                yield [(epoch, entry) for entry in micro_batch.tolist()]

    def _sizes(self, epoch: int, entries: np.ndarray, picture_size: PictureSize) -> list[Size | None]:
        """Of the entries' pictures, as they will be read."""
        sizes = []
        for entry in entries.tolist():
            which, i = self.mixture.locate(entry)
            sizes.append(picture_size(self.mixture.sources[which], i, self.mixture.chance(epoch, entry)))
        return sizes


class TrainSet(Dataset[Sample]):
    """(epoch, entry) to one training sample as `reader(source, i, rng)` makes it; `collate` makes the batch.

    A sample that cannot be used is recorded in `bad` and replaced by another of its source.
    """

    def __init__(self, mixture: Mixture, reader: Reader):
        self.mixture = mixture
        self.reader = reader

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, entry = key
        rng = self.mixture.chance(epoch, entry)
        which, i = self.mixture.locate(entry)
        source = self.mixture.sources[which]
        bad: list[tuple[str, str]] = []
        while len(bad) < _MAX_REPLACEMENTS:
            try:
                return self.reader(source, i, rng) | {"bad": bad}
            except BadSample as error:
                bad.append((sample_id(source, i), str(error)))
                if len(bad) < _MAX_REPLACEMENTS:
                    i = int(rng.integers(len(source)))
        raise UserError(f"{len(bad)} samples in a row cannot be used:", *list_bad(bad))


def list_bad(bad: Iterable[tuple[str, str]]) -> list[str]:
    """Bad samples as (id, reason), for the details of a message."""
    return [f"{name}: {reason}" for name, reason in bad]
