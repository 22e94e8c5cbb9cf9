"""The order and the chances of training data."""

import pickle

import numpy as np
import pytest
import torch
from colour_images import ColourImages
from training_batches import same

from fiber_cli.data.mixing import Mixture, StepSampler, TrainSet, list_bad
from fiber_cli.data.readers import CaptionReader, collate
from fiber_cli.errors import UserError


class Ordered(ColourImages):
    def order(self, rng):
        return np.arange(self.count)


def split(mixture, epoch):
    total = sum(len(source) for source in mixture.sources)
    entries = mixture.epoch(epoch)
    return [(entry // total, *mixture.locate(int(entry))) for entry in entries]


def test_weights_are_repeat_factors():
    mixture = Mixture([ColourImages(10), ColourImages(20, "b"), ColourImages(30, "c")], [1, 2.5, 0.5], seed=3)
    assert len(mixture) == 10 + 50 + 15 == len(mixture.epoch(0))
    halves = []
    for epoch in (0, 1):
        entries = split(mixture, epoch)
        assert len(set(entries)) == len(entries)  # a repetition is another entry, to be augmented differently
        numbers = [sorted(i for _, which, i in entries if which == n) for n in range(3)]
        assert numbers[0] == list(range(10))
        counts = np.bincount(numbers[1], minlength=20)
        assert (counts >= 2).all()
        assert counts.sum() == 50
        assert counts.max() == 3
        assert len(set(numbers[2])) == 15
        assert max(numbers[2]) < 30
        halves.append(numbers[2])
    assert halves[0] != halves[1]  # another half in each epoch


def test_order_is_a_function_of_seed_and_epoch():
    def sources():
        return [ColourImages(50), ColourImages(70, "b")]

    a, b, other = (Mixture(sources(), [1, 1], seed) for seed in (3, 3, 4))
    late = b.epoch(5)  # not having made the epochs before
    assert [a.epoch(e).tolist() for e in range(6)][5] == late.tolist()
    assert late.tolist() != a.epoch(4).tolist() != other.epoch(4).tolist()


def test_samples_come_before_or_after_their_part_of_the_epoch():
    sources = [ColourImages(200), ColourImages(300, "b"), ColourImages(500, "c")]
    mixture = Mixture(sources, [1, 1, 1], seed=0, during=[(0, 0.2), (0.2, 1), (0, 1)])
    for epoch in (0, 1):
        entries = split(mixture, epoch)
        assert sorted(entries) == sorted(split(Mixture(sources, [1, 1, 1], seed=0), epoch))
        which = np.array([number for _, number, _ in entries])
        last_of_first = np.flatnonzero(which == 0)[-1]
        assert last_of_first < np.flatnonzero(which == 1)[0]
        # All that comes in the first fifth: the first source and a fifth of the third.
        assert abs(last_of_first - 300) < 40
    again = Mixture(sources, [1, 1, 1], seed=0, during=[(0, 0.2), (0.2, 1), (0, 1)])
    assert again.epoch(1).tolist() == mixture.epoch(1).tolist() != mixture.epoch(0).tolist()


def test_an_order_of_before_there_were_parts_of_epochs_is_another():
    sources = [ColourImages(20), ColourImages(30, "b")]
    whole = Mixture(sources, [1, 1], seed=0, during=[(0, 1), (0, 1)])
    assert whole.epoch(3).tolist() == Mixture(sources, [1, 1], seed=0).epoch(3).tolist()


@pytest.mark.parametrize("during", [(0.5, 0.5), (0.7, 0.2), (-0.1, 1), (0, 1.5)])
def test_parts_of_epochs_that_there_are_none_of_are_told(during):
    with pytest.raises(UserError, match="give where in an epoch its samples begin and end"):
        Mixture([ColourImages(10)], [1], seed=0, during=[during])


def test_interleaving_keeps_each_sources_order():
    mixture = Mixture([Ordered(40), Ordered(60, "b")], [1, 1], seed=0)
    entries = split(mixture, 0)
    which = [w for _, w, _ in entries]
    for number in (0, 1):
        assert [i for _, w, i in entries if w == number] == list(range(len(mixture.sources[number])))
    assert 30 < np.count_nonzero(np.diff(which)) < 65  # of 99; 48 expected at random


def test_weights_that_leave_nothing():
    for weight in (0.01, 0, -1):
        with pytest.raises(UserError, match=r"data.train: weight .* leaves no sample of colours; raise it"):
            Mixture([ColourImages(10)], [weight], seed=0)


def test_steps_ranks_and_micro_batches_partition_the_batch():
    mixture = Mixture([ColourImages(26)], [1], seed=1)
    whole = list(StepSampler(mixture, 8, 8, 0, 1, 0, 7))
    assert len(whole) == 7
    order = [mixture.epoch(e)[:24].reshape(3, 8).tolist() for e in range(3)]  # 26 // 8 steps an epoch
    assert whole == [[(s // 3, entry) for entry in order[s // 3][s % 3]] for s in range(7)]
    assert set(mixture.epoch(0)[24:]) != set(mixture.epoch(1)[24:])  # what is dropped changes
    for world, micro in ((1, 2), (2, 2), (4, 1), (2, 4)):
        parts = [list(StepSampler(mixture, 8, micro, r, world, 0, 7)) for r in range(world)]
        assert all(len(part) == 7 * 8 // (micro * world) for part in parts)
        joined = [entry for row in zip(*parts, strict=False) for batch in row for entry in batch]
        assert joined == [entry for batch in whole for entry in batch]
    assert list(StepSampler(mixture, 8, 4, 1, 2, 5, 7)) == list(StepSampler(mixture, 8, 4, 1, 2, 0, 7))[5:]
    assert list(StepSampler(mixture, 8, 8, 0, 1, 7, 7)) == []


def wide_or_high(source, i, rng):
    """Of every other picture another shape; a third of them is not known."""
    return None if i % 3 == 0 else (10, 20 + i) if i % 2 else (20 + i, 10)


@pytest.mark.parametrize(("world", "micro"), [(1, 2), (2, 2), (2, 1)])
def test_dealing_by_shape_changes_the_samples_of_a_step(world, micro):
    mixture = Mixture([ColourImages(26)], [1], seed=1)
    batches = (mixture, 8, micro)
    plain = [list(StepSampler(*batches, rank, world, 0, 6)) for rank in range(world)]
    dealt = [list(StepSampler(*batches, rank, world, 0, 6, wide_or_high)) for rank in range(world)]
    assert dealt != plain
    each = 8 // (micro * world)
    for step in range(6):
        of_step = slice(step * each, (step + 1) * each)
        before = _in_turns([part[of_step] for part in plain])
        after = _in_turns([part[of_step] for part in dealt])
        assert sorted(before) == sorted(after)
        kinds = [_kind_of(wide_or_high(None, mixture.locate(entry)[1], None)) for _, entry in after]
        assert kinds == sorted(kinds)
    later = [list(StepSampler(*batches, rank, world, 4, 6, wide_or_high)) for rank in range(world)]
    assert later == [part[4 * each :] for part in dealt]


def _in_turns(parts):
    """The entries of the ranks' micro-batches: the first of every rank, then the second."""
    entries = []
    for turn in zip(*parts, strict=True):
        for micro_batch in turn:
            entries.extend(micro_batch)
    return entries


def _kind_of(size):
    """0 lies, 1 stands, 2 is not known."""
    return 2 if size is None else int(size[0] > size[1])


def test_a_batch_of_one_micro_batch_is_put_in_another_order():
    mixture = Mixture([ColourImages(26)], [1], seed=1)
    assert list(StepSampler(mixture, 8, 8, 0, 1, 0, 7, wide_or_high)) == list(StepSampler(mixture, 8, 8, 0, 1, 0, 7))


def test_batches_that_do_not_fit():
    mixture = Mixture([ColourImages(26)], [1], seed=1)
    with pytest.raises(UserError, match="global_batch: 27 is more than the 26 samples of an epoch"):
        StepSampler(mixture, 27, 27, 0, 1, 0, 1)
    with pytest.raises(AssertionError, match="micro_steps"):  # which tells users
        StepSampler(mixture, 8, 3, 0, 2, 0, 1)


def test_repetitions_of_a_sample_differ(mixture, tokenizer):
    data = TrainSet(mixture, CaptionReader(tokenizer, 8, 16, "randaugment", 0.15))
    total = sum(len(source) for source in mixture.sources)
    assert data[0, 1]["sample_ids"] == data[0, total + 1]["sample_ids"]
    assert not torch.equal(data[0, 1]["pixels"], data[0, total + 1]["pixels"])
    copy = pickle.loads(pickle.dumps(data))  # as a spawned worker gets it
    same(collate([copy[0, 1], copy[1, 15]]), collate([data[0, 1], data[1, 15]]))


def test_replaced_samples_come_from_their_source_and_are_told():
    sources = [ColourImages(6, bad=[2]), ColourImages(4, "b")]
    mixture = Mixture(sources, [1, 1], seed=0)

    def read(source, i, rng):
        source.image(i)
        return {"source": source.name, "i": i}

    data = TrainSet(mixture, read)
    assert data[0, 3] == {"source": "colours", "i": 3, "bad": []}
    replaced = data[0, 2]
    assert replaced["source"] == "colours"
    assert replaced["i"] != 2
    assert set(replaced["bad"]) == {("colours/2", "not there")}
    assert data[0, 2] == replaced
    assert list_bad(replaced["bad"][:1]) == ["colours/2: not there"]


def test_ten_bad_samples_in_a_row_end_the_run(tokenizer):
    data = TrainSet(Mixture([ColourImages(20, bad=range(20))], [1], seed=0), CaptionReader(tokenizer, 8, 16, "none"))
    with pytest.raises(UserError) as raised:
        data[0, 0]
    lines = str(raised.value).splitlines()
    assert lines[0] == "10 samples in a row cannot be used:"
    assert len(lines) == 11
    assert all(line.startswith("  colours/") and line.endswith(": not there") for line in lines[1:])
