"""What a task knows of its run beside the weights."""

import dataclasses

import pytest

from fiber_cli.model.config import TINY
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.nlvr2.settings import Nlvr2Settings


def test_labels_are_added_once_the_data_are_known(tokenizer):
    context = TaskContext(Nlvr2Settings("nlvr2"), TINY, tokenizer, 12)
    assert context.labels is None
    with_labels = dataclasses.replace(context, labels=("yes", "no"))
    assert with_labels.labels == ("yes", "no")
    assert with_labels.model is context.model
    with pytest.raises(dataclasses.FrozenInstanceError):
        context.labels = ("yes",)
