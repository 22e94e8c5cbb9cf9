"""Records: what is not told is None or empty, never something else."""

import pickle

import numpy as np

from fiber_cli.data.records import ANNOTATORS, NamedBoxes, Phrase, PhraseBoxes, Question, Statement


def test_what_annotations_do_not_tell_is_none():
    boxes = np.zeros((0, 4), np.float32)
    assert NamedBoxes(boxes, np.zeros(0, np.int64)).size is None
    assert PhraseBoxes("", boxes, []).size is None
    assert Phrase((0, 3), boxes).types == ()


def test_records_reach_worker_processes():
    question = Question("why?", ("yes",) * ANNOTATORS, 3, "other", "why")
    statement = Statement("it is so", None, "a-1", "a")
    for record in (question, statement):
        assert pickle.loads(pickle.dumps(record)) == record
