"""Renaming by templates: whole names only, both ways, and nothing passes unnamed."""

import pytest
import torch

from fiber_cli.checkpoints.published.names import below, rename, to_our_names, to_published_names
from fiber_cli.errors import UserError

TABLE = {
    "layer.{l}.self.{q}.{p}": "layers.{l}.{q}.{p}",
    "{vqa|nlvr2}_classifier.0.{p}": "{vqa|nlvr2}.fc1.{p}",
    "temp": "temperature",
}


@pytest.mark.parametrize(
    ("name", "counterpart"),
    [
        ("layer.12.self.query.bias", "layers.12.query.bias"),
        ("nlvr2_classifier.0.weight", "nlvr2.fc1.weight"),
        ("temp", "temperature"),
        ("temperature", None),
        ("layer.x.self.query.bias", None),
        ("layer.1.self.query.bias.more", None),
        ("layerx1xself.query.bias", None),
        ("mlm_classifier.0.weight", None),
    ],
)
def test_names_are_matched_whole(name, counterpart):
    assert rename(name, TABLE) == counterpart


def test_prefixes_stand_before_both_names():
    table = below({"norm.{p}": "ln.{p}"}, published="theirs.", ours="encoder.")
    assert table == {"theirs.norm.{p}": "encoder.ln.{p}"}


def test_weights_go_to_our_names_and_back_in_float32():
    state = {
        "temp": torch.ones(1, dtype=torch.float16),
        "vqa_classifier.0.bias": torch.zeros(2),
        "queue": torch.ones(1),
    }
    names = ["temperature", "vqa.fc1.bias"]
    weights = to_our_names(state, TABLE, names=names, ignored=["queue"], check="the task")
    assert list(weights) == names
    assert weights["temperature"].dtype == torch.float32
    assert to_published_names(weights, TABLE).keys() == {"temp", "vqa_classifier.0.bias"}


def test_what_does_not_match_is_named_on_both_sides():
    state = {"temp": torch.ones(1), "new": torch.ones(1)}
    with pytest.raises(UserError, match=r"keys without a place in it: new; .* lacks: vqa\.fc1\.bias; check the task"):
        to_our_names(state, TABLE, names=["temperature", "vqa.fc1.bias"], ignored=[], check="the task")
    # A key with a counterpart that this model has not is unknown as well.
    with pytest.raises(UserError, match="in it: temp;"):
        to_our_names({"temp": torch.ones(1)}, TABLE, names=[], ignored=[], check="the task")
    with pytest.raises(UserError, match="without a published name: new"):
        to_published_names({"new": torch.ones(1)}, TABLE)
