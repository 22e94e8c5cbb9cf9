"""The order, the chances and the batches of training and evaluation data."""

import io
import itertools
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from fiber_cli.tasks.evalset import RetrievalSet
from fiber_cli.data.sources.karpathy import KarpathySource
from fiber_cli.data.loader import (
    BadCounter,
    CaptionReader,
    Mixture,
    StepSampler,
    TrainSet,
    caption_view,
    collate,
    train_loader,
)
from fiber_cli.data.sources.webdataset import WebDatasetSource
from fiber_cli.data.source import BadSample, Source
from fiber_cli.data.text import load_tokenizer
from fiber_cli.data.transforms import EvalTransform
from fiber_cli.errors import UserError


class Colours(Source):
    """Images of one colour, which tells their number; some captions, some images missing."""

    def __init__(self, count, name="colours", bad=(), captions=None):
        self.count, self.name, self.bad, self.text = count, name, set(bad), captions

    def __len__(self):
        return self.count

    def key(self, i):
        return str(i)

    def captions(self, i):
        return self.text(i) if self.text else (f"a {'bc' * (i % 3)}", "d e", "left f")

    def image(self, i, at_least=0):
        if i in self.bad:
            raise BadSample("not there")
        return Image.new("RGB", (40, 30), (i % 256, i // 256, 7))


class Ordered(Colours):
    def order(self, rng):
        return np.arange(self.count)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("builtin")


# The mixture


def split(mixture, epoch):
    total = sum(len(source) for source in mixture.sources)
    entries = mixture.epoch(epoch)
    return [(entry // total, *mixture.locate(int(entry))) for entry in entries]


def test_weights_are_repeat_factors():
    mixture = Mixture([Colours(10), Colours(20, "b"), Colours(30, "c")], [1, 2.5, 0.5], seed=3)
    assert len(mixture) == 10 + 50 + 15 == len(mixture.epoch(0))
    halves = []
    for epoch in (0, 1):
        entries = split(mixture, epoch)
        assert len(set(entries)) == len(entries)  # a repetition is another entry, to be augmented differently
        numbers = [sorted(i for _, which, i in entries if which == n) for n in range(3)]
        assert numbers[0] == list(range(10))
        counts = np.bincount(numbers[1], minlength=20)
        assert (counts >= 2).all() and counts.sum() == 50 and counts.max() == 3
        assert len(set(numbers[2])) == 15 and max(numbers[2]) < 30
        halves.append(numbers[2])
    assert halves[0] != halves[1]  # another half in each epoch


def test_order_is_a_function_of_seed_and_epoch():
    def sources():
        return [Colours(50), Colours(70, "b")]

    a, b, other = (Mixture(sources(), [1, 1], seed) for seed in (3, 3, 4))
    late = b.epoch(5)  # not having made the epochs before
    assert [a.epoch(e).tolist() for e in range(6)][5] == late.tolist()
    assert late.tolist() != a.epoch(4).tolist() != other.epoch(4).tolist()


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
            Mixture([Colours(10)], [weight], seed=0)


# Steps


def test_steps_ranks_and_micro_batches_partition_the_batch():
    mixture = Mixture([Colours(26)], [1], seed=1)
    whole = list(StepSampler(mixture, 8, 8, 0, 1, 0, 7))
    assert len(whole) == 7
    order = [mixture.epoch(e)[:24].reshape(3, 8).tolist() for e in range(3)]  # 26 // 8 steps an epoch
    assert whole == [[(s // 3, entry) for entry in order[s // 3][s % 3]] for s in range(7)]
    assert set(mixture.epoch(0)[24:]) != set(mixture.epoch(1)[24:])  # what is dropped changes
    for world, micro in ((1, 2), (2, 2), (4, 1), (2, 4)):
        parts = [list(StepSampler(mixture, 8, micro, r, world, 0, 7)) for r in range(world)]
        assert all(len(part) == 7 * 8 // (micro * world) for part in parts)
        joined = [entry for row in zip(*parts) for batch in row for entry in batch]
        assert joined == [entry for batch in whole for entry in batch]
    assert list(StepSampler(mixture, 8, 4, 1, 2, 5, 7)) == list(StepSampler(mixture, 8, 4, 1, 2, 0, 7))[5:]
    assert list(StepSampler(mixture, 8, 8, 0, 1, 7, 7)) == []


def test_batches_that_do_not_fit():
    mixture = Mixture([Colours(26)], [1], seed=1)
    with pytest.raises(UserError, match="global_batch: 27 is more than the 26 samples of an epoch"):
        StepSampler(mixture, 27, 27, 0, 1, 0, 1)
    with pytest.raises(AssertionError, match="micro_steps"):  # which tells users
        StepSampler(mixture, 8, 3, 0, 2, 0, 1)


# Samples and batches


def make(mixture, tokenizer, **changes):
    options = {"text_length": 12, "image_size": 16, "augment": "randaugment", "mlm_probability": 0.3}
    batches = {"global_batch": 8, "micro_batch": 8, "rank": 0, "world": 1, "start_step": 0, "total_steps": 6}
    workers = changes.pop("workers", 0)
    options |= {name: changes.pop(name) for name in options if name in changes}
    return train_loader(
        StepSampler(mixture, **batches | changes), CaptionReader(tokenizer, **options), workers, collate
    )


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        equal = torch.equal(a[name], b[name]) if torch.is_tensor(a[name]) else a[name] == b[name]
        assert equal, name


def joined(batches):
    """Several micro-batches as one batch."""
    columns = {name: [batch[name] for batch in batches] for name in batches[0]}
    join = {torch.Tensor: torch.cat, list: lambda column: list(itertools.chain(*column)), int: sum}
    return {name: join[type(column[0])](column) for name, column in columns.items()}


def folder_and_shards(tmp_path):
    """Real files: noise pictures in a folder with a Karpathy JSON, and in three shards; some are damaged."""
    rng, entries = np.random.default_rng(0), []
    (tmp_path / "images").mkdir()
    for i in range(14):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(buffer, "JPEG")
        content = buffer.getvalue()[: 300 if i in (3, 11) else None]
        (tmp_path / "images" / f"{i}.jpg").write_bytes(content)
        sentences = [{"raw": f"{'ab' * i} c"}, {"raw": "d"}]
        entries.append({"filename": f"{i}.jpg", "split": "train", "sentences": sentences})
    (tmp_path / "k.json").write_text(json.dumps({"images": entries}))
    for shard in range(3):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for i in range(5 * shard, min(5 * shard + 5, 14)):
                tar.add(tmp_path / "images" / f"{i}.jpg", f"{i}.jpg")
                info = tarfile.TarInfo(f"{i}.txt")
                info.size = 3
                tar.addfile(info, io.BytesIO(b"a b"))
    return [KarpathySource(tmp_path / "k.json", tmp_path / "images"), WebDatasetSource(f"{tmp_path}/*.tar")]


@pytest.fixture
def mixture(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Mixture(folder_and_shards(tmp_path), [1, 1.5], seed=5)


def test_batches_do_not_depend_on_workers_start_or_ranks(mixture, tokenizer):
    before = torch.get_rng_state()
    reference = list(make(mixture, tokenizer))
    assert len(reference) == 6 and len(reference[0]["bad"]) + len(reference[1]["bad"]) > 0
    for workers in (1, 2):
        for a, b in zip(make(mixture, tokenizer, workers=workers), reference, strict=True):
            same(a, b)
    for a, b in zip(make(mixture, tokenizer, start_step=4, workers=1), reference[4:], strict=True):
        same(a, b)  # steps 4 and 5 are of the second epoch
    ranks = [list(make(mixture, tokenizer, micro_batch=2, rank=r, world=2)) for r in (0, 1)]
    micro = [batch for pair in zip(*ranks) for batch in pair]
    for step, b in enumerate(reference):
        same(joined(micro[4 * step : 4 * step + 4]), b)
    assert torch.equal(torch.get_rng_state(), before)  # the run's own generator is untouched
    assert not all(torch.equal(a["pixels"], b["pixels"]) for a, b in zip(reference[:3], reference[3:]))


def test_more_ranks_than_shards(mixture, tokenizer):
    one = Mixture(mixture.sources[1:], [1], seed=5)  # three shards
    reference = list(make(one, tokenizer))
    ranks = [list(make(one, tokenizer, micro_batch=1, rank=r, world=8)) for r in range(8)]
    for step, b in enumerate(reference):
        same(joined([rank[step] for rank in ranks]), b)


def test_content_of_a_batch(tokenizer):
    mixture = Mixture([Colours(30, bad=[4, 5])], [1], seed=2)
    whole = {"global_batch": 30, "micro_batch": 30, "total_steps": 1}
    (batch,) = make(mixture, tokenizer, **whole, augment="none", text_length=6)
    assert batch["pixels"].shape == (30, 3, 16, 16) and batch["pixels"].dtype == torch.uint8
    for name in ("ids", "mlm_ids", "mlm_labels"):
        assert batch[name].shape == (30, 6) and batch[name].dtype == torch.int64
    assert torch.equal(batch["mask"], batch["ids"] != tokenizer.pad_token_id)
    chosen = batch["mlm_labels"] != -100
    assert chosen.any() and (batch["mlm_labels"][chosen] == batch["ids"][chosen]).all()
    assert (batch["mlm_ids"][~chosen] == batch["ids"][~chosen]).all()
    assert sorted(batch["bad"]) == [("colours/4", "not there"), ("colours/5", "not there")]
    entries = mixture.epoch(0).tolist()
    used = batch["pixels"][:, 0, 0, 0].tolist()  # the red value is the image's number
    assert [name == f"colours/{i}" for name, i in zip(batch["sample_ids"], used)] == [True] * 30
    assert [a == b for a, b in zip(used, entries)] == [i not in (4, 5) for i in entries]
    by_key = {key: set() for key in batch["image_key"].tolist()}
    for key, i in zip(batch["image_key"].tolist(), used):
        by_key[key].add(i)
    assert batch["image_key"].dtype == torch.int64 and len(by_key) == len(set(used))
    assert all(len(numbers) == 1 for numbers in by_key.values())
    cut = batch["ids"][:, 5] == tokenizer.sep_token_id  # no caption has just 6 tokens
    assert batch["truncated"] == cut.sum() > 0


def test_captions_are_drawn_or_taken_in_turn(tokenizer):
    drawn = Mixture(caption_view([Colours(40, captions=lambda i: ("a", "b"))], "random"), [1], seed=0)
    data = TrainSet(drawn, CaptionReader(tokenizer, 8, 16, "none"))
    firsts = [[data[e, i]["ids"][1].item() for i in range(40)] for e in (0, 1)]
    a = tokenizer("a")["input_ids"][1]
    assert 8 < firsts[0].count(a) < 32 and firsts[0] != firsts[1]
    each = Mixture(caption_view([Colours(40, captions=lambda i: ("a", "b"))], "each"), [1], seed=0)
    data = TrainSet(each, CaptionReader(tokenizer, 8, 16, "none"))
    batch = collate([data[0, e] for e in each.epoch(0).tolist()])
    pairs = set(zip(batch["image_key"].tolist(), batch["ids"][:, 1].tolist()))
    assert len(batch["ids"]) == 80 == len(pairs) and len({key for key, _ in pairs}) == 40


def test_captions_with_sides_are_not_mirrored(tokenizer):
    seen = {}

    class Recorder(EvalTransform):
        def __call__(self, image, rng, flip):
            seen[image.getpixel((0, 0))[0]] = flip
            return super().__call__(image)

    texts = ["the cat left of it", "the RIGHT one", "a leftmost", "bright copyleft", "a dog"]
    mixture = Mixture([Colours(5, captions=lambda i: (texts[i],))], [1], seed=0)
    data = TrainSet(mixture, CaptionReader(tokenizer, 8, 16, "none"))
    data.reader.transform = Recorder(16)
    for i in range(5):
        data[0, i]
    assert seen == {0: False, 1: False, 2: False, 3: True, 4: True}


def test_repetitions_of_a_sample_differ(mixture, tokenizer):
    data = TrainSet(mixture, CaptionReader(tokenizer, 8, 16, "randaugment", 0.15))
    total = sum(len(source) for source in mixture.sources)
    assert data[0, 1]["sample_ids"] == data[0, total + 1]["sample_ids"]
    assert not torch.equal(data[0, 1]["pixels"], data[0, total + 1]["pixels"])
    copy = pickle.loads(pickle.dumps(data))  # as a spawned worker gets it
    same(collate([copy[0, 1], copy[1, 15]]), collate([data[0, 1], data[1, 15]]))


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_but_bad_samples(tokenizer, workers):
    mixture = Mixture([Colours(20, bad=range(20))], [1], seed=0)
    with pytest.raises(UserError) as raised:
        list(make(mixture, tokenizer, workers=workers))
    lines = str(raised.value).splitlines()
    assert lines[0] == "10 samples in a row cannot be used:" and len(lines) == 11
    assert all(line.startswith("  colours/") and line.endswith(": not there") for line in lines[1:])


def test_signals_to_the_whole_job_leave_the_workers_at_work(tokenizer):
    mixture = Mixture([Colours(64)], [1], seed=0)
    others = {process.pid for process in multiprocessing.active_children()}
    batches = iter(make(mixture, tokenizer, workers=1, total_steps=8))
    next(batches)
    workers = [process for process in multiprocessing.active_children() if process.pid not in others]
    assert len(workers) == 1
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGTERM):
        os.kill(workers[0].pid, number)
    assert len(list(batches)) == 7


def test_a_kept_error_does_not_keep_the_process():
    """The frames of an error that is still held keep a loader and its worker, past the end of the program."""
    program = """
from fiber_cli.data.loader import make_loader

def refuse(samples):
    raise ValueError("never")

try:
    list(make_loader(range(4), 1, collate_fn=refuse))
except ValueError as error:
    kept = error
print("done")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr


def test_bad_counter():
    def batch(good, bad):
        return {"sample_ids": ["x"] * good, "bad": [(f"s/{n}", "cut short") for n in range(bad)]}

    counter = BadCounter(0.01)
    counter.update(batch(16, 10))  # ten of the first thousand are allowed
    with pytest.raises(UserError, match=r"(?s)11 bad samples among 32 .*max_bad_rate 0.01.*s/0: cut short"):
        counter.update(batch(16, 1))
    counter = BadCounter(0.01)
    counter.load_state_dict({"seen": 2000, "bad": 19})
    counter.update(batch(100, 2))
    assert counter.state_dict() == {"seen": 2100, "bad": 21}
    with pytest.raises(UserError):
        counter.update(batch(0, 1))
    none = BadCounter(0.0)
    with pytest.raises(UserError):
        none.update(batch(16, 1))


# Evaluation


def test_retrieval_set_counts_and_truth(tokenizer):
    texts = [("a",), ("a", "b"), ("a", "b", "c"), ("a",), (), ("a", "b", "c"), ("a",)]
    sources = [Colours(7, bad=[2], captions=texts.__getitem__), Colours(3, "b")]
    data = RetrievalSet(sources, tokenizer, 6, (16, 24))
    assert len(data.images) == 6 + 3 and data.left_out == [("colours/4", "no caption")]
    assert data.images.ids[:5] == [f"colours/{i}" for i in (0, 1, 2, 3, 5)]
    assert data.text_image.tolist() == [0, 1, 1, 2, 2, 2, 3, 4, 4, 4, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8]
    assert len(data.texts) == 20 and data.text_image.dtype == np.int64
    for world in (1, 2, 4, 12):  # also more ranks than images
        for workers in (0, 1) if world == 2 else (0,):
            options = {"world": world, "batch_size": 2, "workers": workers}
            parts = [list(data.images.loader(rank=r, **options)) for r in range(world)]
            batches = [batch for part in parts for batch in part]
            assert torch.cat([batch["index"] for batch in batches]).tolist() == [0, 1, 3, 4, 5, 6, 7, 8]
            assert [pair for batch in batches for pair in batch["bad"]] == [("colours/2", "not there")]
            assert torch.cat([batch["pixels"] for batch in batches if len(batch["index"])]).shape == (8, 3, 16, 24)
            sizes = [sum(len(batch["index"]) + len(batch["bad"]) for batch in part) for part in parts]
            assert max(sizes) - min(sizes) <= 1
    texts = [b for r in range(3) for b in data.texts.loader(rank=r, world=3, batch_size=4, workers=0)]
    assert torch.cat([batch["index"] for batch in texts]).tolist() == list(range(20))
    ids = torch.cat([batch["ids"] for batch in texts])
    assert ids.shape == (20, 6) and ids[3].tolist() == tokenizer("a")["input_ids"] + [1] * 3
    cut = sum(len(tokenizer(text)["input_ids"]) > 6 for text in data.texts.texts)
    assert sum(batch["truncated"] for batch in texts) == cut > 0


def test_retrieval_set_of_real_photographs(shared, tokenizer):
    folder = shared / "data" / "flickr8k-1k"
    source = KarpathySource(folder / "dataset_flickr8k.json", folder / "images", "val")
    data = RetrievalSet([source], tokenizer, 40, 32)
    assert (len(data.images), len(data.texts)) == (100, 500)
    assert (data.text_image == np.arange(500) // 5).all()
    batch = next(iter(data.images.loader(rank=0, world=1, batch_size=4, workers=0)))
    wanted = np.asarray(source.image(3).resize((32, 32), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(batch["pixels"][3].permute(1, 2, 0).numpy() - wanted).max() <= 1
