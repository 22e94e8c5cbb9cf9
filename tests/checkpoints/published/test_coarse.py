"""Published coarse names and ours, both ways, on the published base models' lists of keys."""

import json
import math

import pytest
import torch

from fiber_cli.checkpoints.loading import new_task
from fiber_cli.checkpoints.published import coarse
from fiber_cli.checkpoints.published.stage import STAGES
from fiber_cli.data.text import load_tokenizer
from fiber_cli.errors import UserError
from fiber_cli.model.config import BASE
from fiber_cli.tasks import published_forms
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.context import TaskContext

#: Entry of the published key list → the kind of published checkpoint, and its parameters in all (None where the
#: published total is not known).
ENTRIES = {
    "pretrain_384": ("coarse", 281_897_191),
    "vqa_576": ("vqa", 250_081_539),
    "nlvr2_384": ("nlvr2", 247_372_940),
    "caption_576": ("caption", 287_402_275),
    "irtr_itm_384": ("retrieval-itm", None),
    "irtr_itc_576": ("retrieval-itc", None),
}


@pytest.fixture(scope="module")
def keys(shared):
    return json.loads((shared / "golden" / "coarse_base_keys.json").read_text())


@pytest.fixture(scope="module")
def ours():
    """Parameters of the pre-training model, without content."""
    with torch.device("meta"):
        return dict(CoarseTask(BASE).named_parameters())


def make_task(kind, config):
    """The task that a kind of published checkpoint becomes."""
    declaration, form = published_forms()[kind]
    settings = declaration.settings(name=declaration.name, **form.settings)
    labels = tuple(map(str, range(3129))) if kind == "vqa" else None
    return new_task(TaskContext(settings, config, load_tokenizer("builtin"), form.text_length, labels))


def empty(shapes):
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_published_key_has_its_place_and_every_weight_goes_back(keys, entry):
    kind, total = ENTRIES[entry]
    size = int(entry[-3:])
    config = BASE.at_image_size((size, size))
    with torch.device("meta"):
        ours = dict(make_task(kind, config).named_parameters())
    weights = coarse.from_published(empty(keys[entry]), config, ours)
    assert {name: value.shape for name, value in weights.items()} == {name: p.shape for name, p in ours.items()}
    reasons = STAGES["coarse"].reasons(keys[entry], config, ours)
    assert len(weights) + len(reasons) == len(keys[entry])
    assert all(reasons.values())
    back = {key: list(value.shape) for key, value in coarse.to_published(ours, config).items()}
    assert back == {key: shape for key, shape in keys[entry].items() if key not in coarse.QUEUE}
    if total is not None:
        unused = coarse.unused_shapes(config, ours).values()
        assert sum(p.numel() for p in ours.values()) + sum(math.prod(shape) for shape in unused) == total


def test_the_fusion_has_the_published_parameters(ours):
    """spec: fusion 26,004,498 = image side 12,607,494 + text side 13,397,004. The published model carries parameters
    that it never reads; ours does not, so they are added."""
    image = sum(p.numel() for name, p in ours.items() if name.startswith("encoder.image") and ".cross." in name)
    text = sum(p.numel() for name, p in ours.items() if name.startswith("encoder.text") and ".cross." in name)
    unused = coarse.unused_shapes(BASE, ours)
    text += sum(math.prod(shape) for name, shape in unused.items() if "t2i" in name)
    assert (image, text, image + text) == (12_607_494, 13_397_004, 26_004_498)


def test_round_trip_keeps_values():
    weights = {"itm.fc.weight": torch.randn(2, 1536), "itm.fc.bias": torch.randn(2), "temperature": torch.tensor([0.1])}
    state = coarse.to_published(weights, BASE)
    torch.testing.assert_close(state["rank_output.weight"], weights["itm.fc.weight"][1:])
    assert state["temp"].shape == ()
    back = coarse.from_published(state, BASE, weights)
    assert back.keys() == weights.keys()
    for name, value in weights.items():
        assert torch.equal(back[name], value)


def test_strict_both_ways(keys, ours):
    state = empty(keys["pretrain_384"])
    del state["itm_score.fc.weight"]
    state["vit_model.head.weight"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"vit_model\.head\.weight.*itm\.fc\.weight"):
        coarse.from_published(state, BASE, ours)
    with pytest.raises(UserError, match=r"encoder\.new\.weight"):
        coarse.to_published({"encoder.new.weight": torch.zeros(1)}, BASE)
