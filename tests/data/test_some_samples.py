"""Some samples of a source: it stays what it is, and every method is asked of the right sample."""

import inspect
import pickle

import numpy as np
import pytest

from fiber_cli.data import source as types
from fiber_cli.data.some_samples import some_samples
from fiber_cli.data.sources.scenes import ScenesSource
from fiber_cli.data.sources.statements import StatementFile


@pytest.fixture
def scenes():
    return ScenesSource("train", 9, image_size=64)


def test_a_method_of_one_sample_is_asked_of_another(scenes):
    chosen = [7, 2, 5]
    some = some_samples(scenes, chosen)
    assert isinstance(some, ScenesSource)
    assert len(some) == 3
    for i, number in enumerate(chosen):
        assert some.key(i) == scenes.key(number)
        assert some.captions(i) == scenes.captions(number)
        assert some.questions(i) == scenes.questions(number)
        assert some.statements(i) == scenes.statements(number)
        assert list(some.image_names(i)) == list(scenes.image_names(number))
        assert np.array_equal(some.image(i), scenes.image(number))
        assert some.encoded_image(i) == scenes.encoded_image(number)
    texts, is_true = some.queries_of([0, 2])
    wanted, of_whole = scenes.queries_of([7, 5])
    assert texts == wanted
    assert np.array_equal(is_true, of_whole)


def test_a_view_of_a_view_and_a_copy_lose_samples(scenes):
    twice = some_samples(some_samples(scenes, [8, 6, 4, 2]), [3, 1])
    assert [twice.key(i) for i in range(2)] == [scenes.key(2), scenes.key(6)]
    assert twice.excluded == 0
    twice.excluded = 5
    copied = pickle.loads(pickle.dumps(twice.first(1)))
    assert (len(copied), copied.key(0), copied.excluded) == (1, scenes.key(2), 5)
    assert sorted(twice.order(np.random.default_rng(0)).tolist()) == [0, 1]


def test_a_sample_is_called_otherwise_than_i():
    """By its name an argument is known to be one; these are all abstract classes that tasks read."""
    for kind in vars(types).values():
        if not (inspect.isclass(kind) and issubclass(kind, types.Source)):
            continue
        for name, method in inspect.getmembers(kind, inspect.isfunction):
            arguments = list(inspect.signature(method).parameters)[1:2]
            is_whole = name.startswith("_") or name in ("order", "all_texts", "first", "queries_of", "answerable")
            assert is_whole or arguments in ([], ["i"]), name


def test_statements_have_other_texts(tmp_path):
    lines = []
    for i in range(3):
        lines.append(f'{{"identifier": "{i}", "sentence": "number {i}", "image": "{i}.jpg"}}')
        (tmp_path / f"{i}.jpg").write_bytes(b"x")
    (tmp_path / "s.jsonl").write_text("\n".join(lines))
    some = some_samples(StatementFile(tmp_path / "s.jsonl", tmp_path), [2, 0])
    assert list(some.all_texts((types.StatementSource,))) == ["number 2", "number 0"]
