"""Which parameter learns how fast and decays, and the schedule."""

import json

import pytest
import torch

from fiber_cli.training import optim
from fiber_cli.checkpoints.published.coarse import COARSE
from fiber_cli.checkpoints.published.names import rename
from fiber_cli.model.config import BASE
from fiber_cli.tasks.caption.task import CaptionTask
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.nlvr2.task import Nlvr2Task
from fiber_cli.tasks.vqa.task import VqaTask

#: Name → kind, decays, decays by the published rule.
CASES = {
    "encoder.image.patch_embed.proj.weight": ("backbone", True, True),
    "encoder.image.patch_embed.proj.bias": ("backbone", False, False),
    "encoder.image.patch_embed.norm.weight": ("backbone", False, False),
    "encoder.image.stages.2.blocks.15.norm1.weight": ("backbone", False, False),
    "encoder.image.stages.2.blocks.15.attn.relative_position_bias_table": ("backbone", False, False),
    "encoder.image.stages.2.blocks.15.cross.query.weight": ("cross_modal", True, True),
    "encoder.image.stages.2.blocks.15.cross.norm.weight": ("cross_modal", False, True),
    "encoder.image.stages.2.blocks.15.cross.norm.bias": ("cross_modal", False, False),
    "encoder.image.stages.2.blocks.15.cross.alpha": ("cross_modal", False, True),
    "encoder.image.norm.weight": ("backbone", False, False),
    "encoder.text.embeddings.word.weight": ("backbone", True, True),
    "encoder.text.layers.3.attn_norm.weight": ("backbone", False, False),
    "encoder.text.layers.9.cross.key.weight": ("cross_modal", True, True),
    "encoder.text.layers.9.cross.alpha": ("cross_modal", False, True),
    "encoder.memory_proj.7.weight": ("cross_modal", True, True),
    "pool.text_transform.weight": ("cross_modal", True, True),
    "itc_pool.image_pooler.bias": ("cross_modal", False, False),
    "mlm.dense.weight": ("head", True, True),
    "mlm.norm.weight": ("head", False, False),
    "mlm.bias": ("head", False, False),
    "itm.fc.weight": ("head", True, True),
    "vqa.norm.weight": ("head", False, True),
    "nlvr2.norm.bias": ("head", False, False),
    "temperature": ("backbone", False, True),
}


@pytest.mark.parametrize("name", CASES)
def test_kind_and_decay(name):
    assert (optim.kind_of(name), optim.decays(name), optim.decays(name, published="coarse")) == CASES[name]


def test_published_rule_is_that_of_the_published_code(shared):
    """Against the groups that the published code makes of its own names (its unused parameters have no name
    here)."""
    groups = json.loads((shared / "golden" / "coarse_param_groups.json").read_text())["pretrain"]
    mult, compared = {"backbone": 1.0, "cross_modal": 5.0, "head": 5.0}, 0
    for group in groups:
        for theirs in group["names"]:
            ours = rename(theirs, COARSE)
            if ours is None:
                continue
            compared += 1
            assert optim.decays(ours, published="coarse") == (group["weight_decay"] > 0), (theirs, ours)
            assert mult[optim.kind_of(ours)] == group["lr_over_base"], (theirs, ours)
    assert compared > 500


def test_groups_hold_every_trained_parameter_once():
    named = [(name, torch.nn.Parameter(torch.zeros(1))) for name in CASES]
    named[0][1].requires_grad_(False)
    groups = optim.param_groups(named, weight_decay=0.1, cross_modal_mult=5.0, head_mult=50.0)
    names = {id(parameter): name for name, parameter in named}
    assert sorted(names[id(parameter)] for g in groups for parameter in g["params"]) == sorted(list(CASES)[1:])
    assert sum(len(g["params"]) for g in groups) == len(CASES) - 1
    found = {g["name"]: (g["mult"], g["weight_decay"]) for g in groups}
    assert found == {
        "backbone/decay": (1.0, 0.1),
        "backbone/no_decay": (1.0, 0.0),
        "cross_modal/decay": (5.0, 0.1),
        "cross_modal/no_decay": (5.0, 0.0),
        "head/decay": (50.0, 0.1),
        "head/no_decay": (50.0, 0.0),
    }
    optim.set_lr(groups, 0.01)
    assert {g["lr"] for g in groups} == {0.01, 0.05, 0.5}


def test_empty_groups_are_left_out():
    groups = optim.param_groups([("temperature", torch.nn.Parameter(torch.zeros(1)))], weight_decay=0.1)
    assert [g["name"] for g in groups] == ["backbone/no_decay"]


def test_schedules():
    def factors(schedule, warmup=4, steps=12):
        return [optim.lr_factor(s, steps=steps, warmup=warmup, schedule=schedule) for s in range(steps)]

    rise = [0.2, 0.4, 0.6, 0.8]
    assert factors("linear") == pytest.approx(rise + [1 - k / 8 for k in range(8)])
    assert factors("constant") == pytest.approx(rise + [1.0] * 8)
    assert factors("plateau") == factors("constant")
    assert optim.lr_factor(9, steps=12, warmup=4, schedule="plateau", drops=2) == pytest.approx(0.01)
    # Half way down at the middle of the fall, symmetric about it.
    cosine = factors("cosine")
    assert cosine[:5] == pytest.approx([*rise, 1.0]) and cosine[8] == pytest.approx(0.5)
    assert cosine[6] + cosine[10] == pytest.approx(1.0)
    assert factors("linear", warmup=0, steps=2) == pytest.approx([1.0, 0.5])
    assert all(0 < f <= 1 for f in factors("linear") + cosine)


#: Entry of the published groups → the task of its model, with its settings, and its classifier's norm.
PUBLISHED_MODELS = {
    "pretrain": (CoarseTask, {}, set()),
    "vqa": (VqaTask, {"labels": 3129}, {"vqa.norm.weight"}),
    "nlvr2": (Nlvr2Task, {}, {"nlvr2.norm.weight"}),
    "caption_mle": (CaptionTask, {}, set()),
}


@pytest.mark.parametrize("entry", PUBLISHED_MODELS)
def test_every_parameter_learns_and_decays_as_published(shared, entry):
    """By the coarse rule; by ours, gates, the temperature and norms that the published code decays do not."""
    make, settings, classifier_norm = PUBLISHED_MODELS[entry]
    with torch.device("meta"):
        parameters = dict(make(BASE, **settings).named_parameters())
    names = {id(parameter): name for name, parameter in parameters.items()}

    def rates_and_decays(rule):
        options = {"weight_decay": 0.01, "cross_modal_mult": 5.0, "head_mult": 5.0, "published": rule}
        groups = optim.param_groups(parameters.items(), **options)
        return {names[id(p)]: (group["mult"], group["weight_decay"]) for group in groups for p in group["params"]}

    expected = {}
    for group in json.loads((shared / "golden" / "coarse_param_groups.json").read_text())[entry]:
        for key in group["names"]:
            name = rename(key, COARSE)
            if name in parameters:
                expected[name] = (group["lr_over_base"], group["weight_decay"])
    assert expected.keys() == parameters.keys()
    assert rates_and_decays("coarse") == expected
    changed = {name for name, (_, decay) in rates_and_decays("none").items() if decay != expected[name][1]}
    gates = {name for name in parameters if name.endswith(".alpha") or name == "temperature"}
    assert changed == classifier_norm | gates | {name for name in parameters if name.endswith("cross.norm.weight")}
