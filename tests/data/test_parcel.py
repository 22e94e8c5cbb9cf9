"""What workers that are not forked are sent: all of it, as it was, and large arrays and files shared."""

import os
import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from annotation_files import KINDS, entry_of, said_by
from shard_server import serving_shards

from fiber_cli.config.resolve import resolve_recipe, resolve_source
from fiber_cli.data import kept_sources, loader
from fiber_cli.data.columns import map_array
from fiber_cli.data.each_caption import EachCaption
from fiber_cli.data.parcel import SHARED_BYTES, Parcel, SentCollate, SentDataset
from fiber_cli.data.some_samples import some_samples
from fiber_cli.data.sources import open_source
from fiber_cli.data.sources.webdataset import WebDatasetSource
from fiber_cli.tasks import items
from fiber_cli.training.work import work


def sent(content):
    """The content as a worker has it."""
    return pickle.loads(ForkingPickler.dumps(Parcel(content))).content


def same(ours, theirs, what=""):
    """That two samples or batches are the same to the bit."""
    assert type(ours) is type(theirs), what
    if isinstance(ours, dict):
        assert list(ours) == list(theirs), what
        for name in ours:
            same(ours[name], theirs[name], f"{what}.{name}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), what
        for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            same(a, b, f"{what}[{number}]")
    elif isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype, what
        assert torch.equal(ours, theirs), what
    else:
        assert pickle.dumps(ours) == pickle.dumps(theirs), what


def test_large_arrays_are_copied_to_every_worker_and_small_ones_lost():
    large, small = np.arange(SHARED_BYTES), np.arange(5)
    parcel = Parcel({"large": large, "twice": [large, small], "columns": np.asfortranarray(np.ones((300, 200)))})
    pickled = [ForkingPickler.dumps(parcel) for _ in range(2)]
    assert max(map(len, pickled)) < 1000
    first, second = [pickle.loads(each).content for each in pickled]
    for content in (first, second):
        assert np.array_equal(content["large"], large)
        assert content["twice"][0] is content["large"]
        assert np.array_equal(content["twice"][1], small)
        assert content["columns"].flags.f_contiguous
    first["large"][3] = 77  # its own from here on, as after a fork
    assert (second["large"][3], large[3]) == (3, 3)


def test_a_mapped_file_that_was_replaced_is_another_in_workers(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(np.arange(1000).tobytes())
    mapped = map_array(file, "<i8", (900,), 800)
    (tmp_path / "b").write_bytes(bytes(8000))
    os.replace(tmp_path / "b", file)
    again = sent([mapped, mapped[5:9]])
    assert np.array_equal(again[0], np.arange(100, 1000))
    assert again[1].tolist() == [105, 106, 107, 108]
    assert again[0].file is not None  # mapped, not copied
    file.unlink()
    assert np.array_equal(sent(mapped), mapped)


def test_the_pair_of_a_loader_is_opened_twice():
    parcel = Parcel(([10, 20, 30], sum))
    dataset, collate = pickle.loads(ForkingPickler.dumps((SentDataset(parcel), SentCollate(parcel))))
    assert dataset.parcel is collate.parcel
    assert (len(dataset), dataset[1], collate([1, 2])) == (3, 20, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_says_otherwise_in_a_worker(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_sources, "LEAST_BYTES", 0)
    source = open_source(resolve_source(entry_of(kind, tmp_path), str(tmp_path)))
    some = some_samples(source, range(0, len(source), 3))
    again, first, some_again = sent([source, source.first(7), some])
    assert said_by(again) == said_by(source)
    assert said_by(first) == said_by(source.first(7))
    assert [some_again.key(i) for i in range(len(some))] == [some.key(i) for i in range(len(some))]


def test_shards_are_others_in_a_worker(tars):
    with serving_shards(tars) as server:
        for place in (f"{tars}/*.tar", f"{server.address}/{{00000..00002}}.tar"):
            source = WebDatasetSource(place)
            source.encoded_image(3)  # one that is open
            again, each = sent([source, EachCaption(source)])
            for i in range(len(source)):
                assert again.encoded_image(i) == source.encoded_image(i)
                assert each.captions(i) == source.captions(i)


@pytest.fixture
def loaders(monkeypatch):
    """Data set, collate function and keys of a batch of every loader that is made; none has workers."""
    made = []
    make = loader.make_loader

    def making(dataset, workers, *, collate_fn, **options):
        sampler = options["batch_sampler"] if "batch_sampler" in options else [range(min(4, len(dataset)))]
        made.append((dataset, collate_fn, list(next(iter(sampler)))))
        return make(dataset, 0, collate_fn=collate_fn, **options)

    monkeypatch.setattr(loader, "make_loader", making)
    monkeypatch.setattr(items, "make_loader", making)
    return made


#: Recipes of drawn scenes, all tasks among them, and how many loaders each has at least.
RECIPES = {
    "tiny": 3,
    "tiny_retrieval": 3,
    "tiny_fine": 3,
    **dict.fromkeys(("tiny_detection", "tiny_grounding", "tiny_refexp"), 2),
    **dict.fromkeys(("tiny_vqa", "tiny_vqa_generated", "tiny_nlvr2", "tiny_caption"), 2),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_batch_of_a_task_is_another_in_a_worker(name, loaders):
    settings = ["log.validate_every=1", "data.workers=0", "log.keep_best=null"]
    sets = len(resolve_recipe(name, settings).data.val)
    counts = [f"data.val.{number}.count=8" for number in range(sets)]
    recipe = resolve_recipe(name, [*settings, *counts])
    planned = work(recipe)
    batches = planned.batches(0)
    next(batches)
    batches.close()
    planned.validate(planned.task)
    assert len(loaders) >= RECIPES[name]
    for dataset, collate, keys in loaders:
        again, collate_again = sent((dataset, collate))
        same(collate_again([again[key] for key in keys]), collate([dataset[key] for key in keys]))
