"""Which parameter learns how fast and decays, and the schedule."""

import dataclasses
import json

import pytest
import torch

from fiber_cli.checkpoints.loading import new_task
from fiber_cli.checkpoints.published.coarse import COARSE
from fiber_cli.checkpoints.published.names import rename
from fiber_cli.config.recipe import ModelSettings
from fiber_cli.errors import DeclarationError
from fiber_cli.model.config import BASE, TINY, DetectorConfig
from fiber_cli.model.detector.detector import HEADS as HEADS_OF_DETECTOR
from fiber_cli.model.detector.detector import Detector
from fiber_cli.tasks import TASKS, declared
from fiber_cli.tasks.caption.task import CaptionTask
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.declaration import ParameterKinds
from fiber_cli.tasks.nlvr2.task import Nlvr2Task
from fiber_cli.tasks.vqa.task import VqaTask
from fiber_cli.training.model_sizes import model_config
from fiber_cli.training.optim import check_parameters, decays, lr_factor, param_groups, parameter_kind, set_lr

KINDS = ParameterKinds(
    heads=("mlm.", "itm.", "vqa.", "nlvr2."), cross_modal=("pool.", "itc_pool."), backbone=("temperature",)
)
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
    "encoder.image.position.table": ("backbone", False, True),
    "encoder.image.norm.weight": ("backbone", False, False),
    "encoder.text.embeddings.word.weight": ("backbone", True, True),
    "encoder.text.layers.3.attn_norm.weight": ("backbone", False, False),
    "encoder.text.layers.9.cross.key.weight": ("cross_modal", True, True),
    "encoder.text.layers.9.cross.alpha": ("cross_modal", False, True),
    "encoder.text.layers.9.cross.image_key.weight": ("cross_modal", True, True),
    "encoder.top.image_in.weight": ("cross_modal", True, True),
    "encoder.top.text_layers.0.attn.query.bias": ("cross_modal", False, False),
    "encoder.top.image_layers.5.cross_norm.weight": ("cross_modal", False, False),
    "encoder.memory_proj.7.weight": ("cross_modal", True, True),
    "pool.text_transform.weight": ("cross_modal", True, True),
    "itc_pool.image_pooler.bias": ("cross_modal", False, False),
    "mlm.dense.weight": ("head", True, True),
    "mlm.norm.weight": ("head", False, False),
    "mlm.bias": ("head", False, False),
    "mlm.fusions.0.both_ways.image_scale": ("head", False, True),
    "itm.fc.weight": ("head", True, True),
    "vqa.norm.weight": ("head", False, True),
    "nlvr2.norm.bias": ("head", False, False),
    "temperature": ("backbone", False, True),
}


@pytest.mark.parametrize("name", CASES)
def test_kind_and_decay_follow_from_the_name(name):
    assert (parameter_kind(name, KINDS), decays(name), decays(name, as_published="coarse")) == CASES[name]


@pytest.mark.parametrize("name", ["detector.head.weight", "temperatur", "image.norm.weight"])
def test_a_parameter_that_no_declaration_names_is_an_error(name):
    with pytest.raises(ValueError, match=rf"'{name}'.* declaration: .*heads, cross_modal or backbone"):
        parameter_kind(name, KINDS)


def test_a_run_does_not_start_with_a_parameter_that_no_declaration_names():
    named = [("encoder.a", torch.nn.Parameter(torch.zeros(1))), ("stray.weight", torch.nn.Parameter(torch.zeros(1)))]
    with pytest.raises(ValueError, match=r"'stray\.weight' is outside the encoder"):
        param_groups(named, KINDS, weight_decay=0.1)


def test_all_but_biases_decay_as_published_by_the_fine_stage():
    decaying = {name for name in CASES if decays(name, as_published="fine")}
    assert CASES.keys() - decaying == {name for name in CASES if "bias" in name.split(".")[-1]}


def published_groups(shared, entry):
    """The groups that the published code makes of its own names: names, rate over the base rate, decay."""
    return json.loads((shared / "golden" / "coarse_param_groups.json").read_text())[entry]


def test_the_published_rule_is_that_of_the_published_code(shared):
    """Against the groups that the published code makes of its own names (its unused parameters have no name
    here)."""
    mult = {"backbone": 1.0, "cross_modal": 5.0, "head": 5.0}
    kinds = declared("coarse").parameters
    compared = 0
    for group in published_groups(shared, "pretrain"):
        for theirs in group["names"]:
            ours = rename(theirs, COARSE)
            if ours is None:
                continue
            compared += 1
            assert decays(ours, as_published="coarse") == (group["weight_decay"] > 0), (theirs, ours)
            assert mult[parameter_kind(ours, kinds)] == group["lr_over_base"], (theirs, ours)
    assert compared > 500


def test_groups_hold_every_trained_parameter_once():
    named = [(name, torch.nn.Parameter(torch.zeros(1))) for name in CASES]
    named[0][1].requires_grad_(False)
    groups = param_groups(named, KINDS, weight_decay=0.1, cross_modal_mult=5.0, head_mult=50.0)
    names = {id(parameter): name for name, parameter in named}
    grouped = [names[id(parameter)] for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(list(CASES)[1:])
    assert {group["name"]: (group["mult"], group["weight_decay"]) for group in groups} == {
        "backbone/decay": (1.0, 0.1),
        "backbone/no_decay": (1.0, 0.0),
        "cross_modal/decay": (5.0, 0.1),
        "cross_modal/no_decay": (5.0, 0.0),
        "head/decay": (50.0, 0.1),
        "head/no_decay": (50.0, 0.0),
    }
    set_lr(groups, 0.01)
    assert {group["lr"] for group in groups} == {0.01, 0.05, 0.5}


def test_empty_groups_are_left_out():
    groups = param_groups([("temperature", torch.nn.Parameter(torch.zeros(1)))], KINDS, weight_decay=0.1)
    assert [group["name"] for group in groups] == ["backbone/no_decay"]


@pytest.mark.parametrize("head", HEADS_OF_DETECTOR)
def test_norms_of_a_detection_head_decay(head):
    """torchvision's layers have numbers for names."""
    with torch.device("meta"):
        detector = Detector(TINY, DetectorConfig(channels=32, head=head))
    norms = 0
    for prefix, module in detector.named_modules(prefix="detector"):
        if isinstance(module, torch.nn.GroupNorm | torch.nn.LayerNorm):
            assert not decays(f"{prefix}.weight")
            norms += 1
    assert norms >= 3
    assert decays("detector.head.features.conv.0.0.weight")


#: Task → its heads, which learn `optim.head_mult` times faster than the backbone.
HEADS = {
    "coarse": {"mlm", "itm"},
    "fine": {"detector"},
    "retrieval": {"itm"},
    "vqa": {"vqa"},
    "vqa_generated": {"mlm"},
    "nlvr2": {"nlvr2"},
    "caption": {"mlm"},
    "detection": {"detector"},
    "grounding": {"detector"},
    "refexp": {"detector"},
}


@pytest.mark.parametrize("name", TASKS)
def test_every_head_of_a_task_and_nothing_else_learns_at_the_rate_of_heads(name, tokenizer):
    declaration = declared(name)
    sizes = ModelSettings("tiny", depths=(1, 1, 1), text_layers=2, fusion_layers=1)
    model = model_config(sizes, tokenizer, free_image_size=declaration.free_image_size)
    context = TaskContext(declaration.settings(name), model, tokenizer, 20, labels=("no", "yes"))
    task = new_task(context)
    names = {id(parameter): parameter_name for parameter_name, parameter in task.named_parameters()}
    groups = param_groups(task.named_parameters(), declaration.parameters, weight_decay=0.1, head_mult=50.0)
    grouped, fast = set(), set()
    for group in groups:
        members = {names[id(parameter)] for parameter in group["params"]}
        grouped |= members
        if group["mult"] == 50.0:
            fast |= members
    assert fast == {parameter for parameter in names.values() if parameter.split(".")[0] in HEADS[name]}
    assert {parameter.split(".")[0] for parameter in fast} == HEADS[name], "each of the heads has parameters"
    assert grouped == {parameter_name for parameter_name, p in task.named_parameters() if p.requires_grad}


def test_the_text_encoder_and_published_biases_have_further_factors():
    named = [(name, torch.nn.Parameter(torch.zeros(1))) for name in CASES]
    groups = param_groups(
        named, KINDS, weight_decay=0.1, cross_modal_mult=5.0, head_mult=50.0, text_mult=0.5, as_published="fine"
    )
    assert {group["name"]: (group["mult"], group["weight_decay"]) for group in groups} == {
        "backbone/decay": (1.0, 0.1),
        "backbone/no_decay": (2.0, 0.0),
        "backbone/text/decay": (0.5, 0.1),
        "cross_modal/decay": (5.0, 0.1),
        "cross_modal/no_decay": (10.0, 0.0),
        "cross_modal/text/decay": (2.5, 0.1),
        "head/decay": (50.0, 0.1),
        "head/no_decay": (100.0, 0.0),
    }


def factors(schedule, warmup=4, steps=12):
    return [lr_factor(step, steps=steps, warmup=warmup, schedule=schedule) for step in range(steps)]


def test_schedules_rise_and_fall_as_they_say():
    rise = [0.2, 0.4, 0.6, 0.8]
    assert factors("linear") == pytest.approx(rise + [1 - k / 8 for k in range(8)])
    assert factors("constant") == pytest.approx(rise + [1.0] * 8)
    assert factors("plateau") == factors("constant")
    assert lr_factor(9, steps=12, warmup=4, schedule="plateau", drops=2) == pytest.approx(0.01)
    # Half way down at the middle of the fall, symmetric about it.
    cosine = factors("cosine")
    assert cosine[:5] == pytest.approx([*rise, 1.0])
    assert cosine[8] == pytest.approx(0.5)
    assert cosine[6] + cosine[10] == pytest.approx(1.0)
    assert factors("linear", warmup=0, steps=2) == pytest.approx([1.0, 0.5])
    assert all(0 < factor <= 1 for factor in factors("linear") + cosine)


def test_the_schedule_steps_falls_to_a_tenth_twice():
    expected = [1.0] * 67 + [0.1] * 22 + [0.01] * 11
    assert factors("steps", warmup=0, steps=100) == pytest.approx(expected)


def test_an_unknown_schedule_is_an_error():
    with pytest.raises(ValueError, match="unknown schedule 'spiral'"):
        lr_factor(1, steps=2, warmup=0, schedule="spiral")


#: Entry of the published groups → the task and its module, with its settings, and its classifier's norm.
PUBLISHED_MODELS = {
    "pretrain": ("coarse", CoarseTask, {}, set()),
    "vqa": ("vqa", VqaTask, {"labels": 3129}, {"vqa.norm.weight"}),
    "nlvr2": ("nlvr2", Nlvr2Task, {}, {"nlvr2.norm.weight"}),
    "caption_mle": ("caption", CaptionTask, {}, set()),
}


@pytest.mark.parametrize("entry", PUBLISHED_MODELS)
def test_every_parameter_learns_and_decays_as_published(shared, entry):
    """By the coarse rule; by ours, gates, the temperature and norms that the published code decays do not."""
    task, module, settings, classifier_norm = PUBLISHED_MODELS[entry]
    with torch.device("meta"):
        parameters = dict(module(BASE, **settings).named_parameters())
    names = {id(parameter): name for name, parameter in parameters.items()}

    def rates_and_decays(rule):
        options = {"weight_decay": 0.01, "cross_modal_mult": 5.0, "head_mult": 5.0, "as_published": rule}
        resulting = {}
        for group in param_groups(parameters.items(), declared(task).parameters, **options):
            for parameter in group["params"]:
                resulting[names[id(parameter)]] = (group["mult"], group["weight_decay"])
        return resulting

    expected = {}
    for group in published_groups(shared, entry):
        for key in group["names"]:
            name = rename(key, COARSE)
            if name in parameters:
                expected[name] = (group["lr_over_base"], group["weight_decay"])
    assert expected.keys() == parameters.keys()
    assert rates_and_decays("coarse") == expected
    changed = {name for name, (_, decay) in rates_and_decays("none").items() if decay != expected[name][1]}
    gates = {name for name in parameters if name.endswith(".alpha") or name == "temperature"}
    assert changed == classifier_norm | gates | {name for name in parameters if name.endswith("cross.norm.weight")}


@pytest.mark.parametrize(
    ("name", "without", "kinds"),
    [
        ("vqa", "vqa.", ParameterKinds((), ("pool.",), ())),
        ("nlvr2", "pool.", ParameterKinds(("nlvr2.",), (), ())),
        ("nlvr2", "nlvr2.", ParameterKinds(("nlvr.",), ("pool.",), ())),
        ("coarse", "temperature", ParameterKinds(("mlm.", "itm."), ("pool.", "itc_pool."), ())),
    ],
)
def test_a_head_without_a_rate_is_found_by_the_optimiser_alone(name, without, kinds):
    wrong = dataclasses.replace(declared(name), parameters=kinds)
    with pytest.raises(DeclarationError, match=f"task '{name}': the parameter '{without}.*' is outside the encoder"):
        check_parameters(["encoder.text.x", without + "x"], wrong)


def test_prefixes_of_another_module_are_taken():
    with pytest.raises(DeclarationError, match=r"task 'vqa': no parameter .* any of parameters, which are vqa., pool."):
        check_parameters(["encoder.text.x"], declared("vqa"))
    # Without ITM retrieval has no head.
    check_parameters(["encoder.text.x", "pool.x", "itc_pool.x", "temperature"], declared("retrieval"))
