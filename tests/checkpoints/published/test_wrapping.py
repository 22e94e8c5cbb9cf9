"""What stands around a published model in a file."""

import pytest
import torch

from fiber_cli.checkpoints.published.wrapping import BESIDE, COPY, own_entries
from fiber_cli.errors import UserError

LANDMARK = "tower.table"
MODEL = {"tower.table": torch.ones(1), "head.weight": torch.zeros(2), "temp": torch.ones(())}


def below(prefix, state=MODEL):
    return {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "module.model.", "_forward_module.net."])
def test_a_prefix_is_taken_for_part_of_the_names(prefix):
    entries = own_entries(below(prefix), LANDMARK)
    assert entries.state == MODEL
    assert not entries.left_out


@pytest.mark.parametrize(
    ("model", "copy"), [("", "copy_module."), ("model.", "model_ema."), ("student.", "ema."), ("", "teacher.net.")]
)
def test_a_copy_is_taken_for_the_model(model, copy):
    other = {key: value + 1 for key, value in MODEL.items()}
    entries = own_entries({**below(copy, other), **below(model)}, LANDMARK)
    assert entries.state == MODEL
    assert entries.left_out == dict.fromkeys(below(copy), COPY)


def test_what_stands_beside_the_model_is_lost_without_a_word():
    entries = own_entries({**below("model."), "score.total": torch.ones(1)}, LANDMARK)
    assert entries.state == MODEL
    assert entries.left_out == {"score.total": BESIDE}


def test_one_of_several_models_is_guessed():
    with pytest.raises(UserError, match=r"several models, below a\., b\.: save"):
        own_entries({**below("a."), **below("b.")}, LANDMARK)


def test_names_that_only_end_like_the_model_are_taken_apart():
    state = {"othertower.table": torch.ones(1)}
    assert own_entries(state, LANDMARK).state == state
