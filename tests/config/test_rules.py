"""Settings that are right alone and wrong together, those of the tasks among them."""

import pytest
from good_recipe import good, problems

from fiber_cli.config.resolve import resolve_recipe
from fiber_cli.config.rules import RULES, kinds_for
from fiber_cli.data.sources import FORMATS
from fiber_cli.settings import RecipeError
from fiber_cli.tasks import declarations, declared


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.image_size=100"], "model.image_size: 100 is not a multiple of 32"),
        (
            ["model.roberta=roberta-base", "model.tokenizer=builtin"],
            "model.tokenizer: the weights 'roberta-base' need their own",
        ),
        (["task.mlm=0", "task.itm=0", "task.itc=0"], "task: all its weights are 0"),
        (["task.itc=0"], "task.itm_negatives: hard negatives are drawn by ITC similarity"),
        (["task.itm_margin=1", "task.itm_negatives=random"], "task.itm_margin: only hard negatives are chosen by ITC"),
        (["task.itc=0", "task.itm=0", "task.queue_size=8"], "task.queue_size: only ITC uses the queue"),
        (["optim.steps=null"], "optim: steps=None and epochs=None: give exactly one"),
        (["optim.epochs=1"], "optim: steps=100 and epochs=1: give exactly one"),
        (["optim.warmup=1.5"], "optim.warmup: 1.5: from 1 on it counts whole steps"),
        (["optim.warmup=100"], "optim.warmup: 100 must end before the run's 100 steps do"),
        (["runtime.global_batch=31"], "runtime.global_batch: 31 is no multiple"),
        (["runtime.ema=0.999", "runtime.zero_stage=3"], "runtime.ema: needs whole parameters"),
        (["runtime.offload=cpu"], "runtime.offload: DeepSpeed offloads sharded state only"),
        (["log.validate_every=5", "data.val=[]"], "log.validate_every: there is nothing to validate on"),
        (["log.keep_best=itc/ir@1"], "log.keep_best: needs validation"),
        (
            ["log.keep_best=itc/ir@2", "log.validate_every=5"],
            "log.keep_best: 'itc/ir@2' is no metric of this coarse task; it has itc/ir@1, itc/ir@5",
        ),
        (
            ["log.validate_every=5", "task.itc=0", "task.itm=0"],
            "log.validate_every: validation measures retrieval, which needs task.itc or task.itm above 0",
        ),
        (
            ["log.validate_every=5", "task.itc=0", "task.itm_negatives=random", "log.keep_best=itc/ir@1"],
            "log.keep_best: 'itc/ir@1' is no metric of this coarse task; it has itm/ir@1",
        ),
        (["optim.schedule=plateau"], "log.keep_best: optim.schedule=plateau goes by it: name a metric"),
        (["model.towers=runs/x", "model.swin=y"], "model.towers: towers are the weights of both"),
    ],
)
def test_settings_that_do_not_go_together(overrides, message):
    (line,) = problems(*overrides)
    assert line.split(": ", 1)[1].startswith(message), line


@pytest.mark.parametrize(
    "overrides",
    [
        ["task.itc=0", "task.itm_negatives=random"],
        ["task.itc=0", "task.itm=0"],
        ["model.roberta=x", "model.tokenizer=x"],
        ["model.towers=runs/x"],
        ["optim.steps=null", "optim.epochs=3", "optim.warmup=1000"],
        ["optim.warmup=99"],
        ["runtime.ema=0.999", "runtime.zero_stage=2", "runtime.offload=cpu"],
        ["log.validate_every=5", "log.keep_best=itc/tr@10"],
    ],
)
def test_settings_that_do(overrides):
    good(*overrides)


def test_a_rule_rests_where_one_of_its_settings_is_wrong_by_itself():
    (line,) = problems("optim.steps=many", "optim.epochs=2")
    assert line.startswith("command line: optim.steps: wanted a whole number")
    (line,) = problems("task.itc=-1", "task.queue_size=8")
    assert line.startswith("command line: task.itc: -1.0 is out of range")


def test_a_rule_about_a_setting_that_is_not_given_blames_its_section():
    text = "optim: {lr: 1e-3}\nmodel: {preset: tiny}\ntask: {name: retrieval,\n itc: 0}\n"
    text += "data: {train: [{kind: scenes}]}\nruntime: {micro_batch: 8, global_batch: 8}\n"
    assert [line.split(": ", 2)[:2] for line in problems(text=text)] == [
        ["good.yaml:1", "optim"],
        ["good.yaml:3", "task.itm_negatives"],
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.augment=randaugment", "have their own transform"),
        ("data.captions=each", "captions with boxes come one by one"),
        ("task.short_sides=[]", r"task.short_sides: names no size"),
        ("task.control=[0.5, 0.5, 0.5]", "is more than 1 in all"),
        ("data.val=[{kind: coco, json: a, images: a}, {kind: coco, json: b, images: b}]", "go by odinw/ap"),
        ("log.keep_best=odinw/ap", "is the mean of several sets"),
        ("log={stop_after: 8}", r"log.stop_after goes by it"),
        ("data.train=[{kind: vqa, questions: a, images: a}]", "fine cannot use sources of kind vqa"),
    ],
)
def test_rules_of_region_level_recipes(change, message):
    with pytest.raises(RecipeError, match=message):
        resolve_recipe("tiny_fine", [change])


def test_the_best_of_several_detection_sets_goes_by_their_mean():
    several = "data.val=[{kind: scene_detection, split: val}, {kind: scene_detection, split: test}]"
    assert resolve_recipe("tiny_fine", [several, "log.keep_best=odinw/ap"]).log.keep_best == "odinw/ap"


def test_what_ends_a_run_must_be_able_to():
    with pytest.raises(RecipeError, match=r"ends the run before optim.patience=3 lowers the rate"):
        resolve_recipe("tiny_fine", ["optim.schedule=plateau", "log.stop_after=3"])
    pair = "data.val=[{kind: mdetr, json: a, images: a}, {kind: mdetr, json: b, images: b}]"
    with pytest.raises(RecipeError, match=r"refexp/acc@iou50 of several sets is not one number"):
        resolve_recipe("tiny_fine", [pair, "log.keep_best=refexp/acc@iou50"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.objective=cider", r"task.cider_df: the reward needs document frequencies"),
        ("runtime.zero_stage=3", r"task.objective: gold needs whole parameters on every rank"),
    ],
)
def test_rules_of_captioning(override, message):
    with pytest.raises(RecipeError, match=message):
        resolve_recipe("caption_gold", [override])


def test_a_source_that_is_wrong_by_itself_breaks_no_rule():
    (line,) = problems("data.val=[{kind: scens}]", "log.validate_every=5")
    assert "unknown kind 'scens'" in line
    with pytest.raises(RecipeError, match="unknown kind 'cocoo'") as caught:
        resolve_recipe("tiny_fine", ["data.val=[{kind: cocoo}]"])
    assert str(caught.value).startswith("1 problem")


@pytest.mark.parametrize("declaration", [*declarations()], ids=lambda declaration: declaration.name)
def test_rules_name_settings_that_there_are(declaration):
    recipe = good()
    task = declaration.settings(name=declaration.name)
    for rule in (*RULES, *declaration.rules):
        for key in rule.keys:
            section, _, setting = key.partition(".")
            owner = task if section == "task" else recipe
            names = dir(task) if section == "task" else dir(getattr(owner, section))
            # `task.mlm` is a setting of one of the two tasks that share a rule.
            assert not setting or setting in names or key == "task.mlm", key


def test_every_task_can_use_what_yields_its_samples():
    assert kinds_for(declared("vqa")) == ["scenes", "vqa"]
    assert kinds_for(declared("nlvr2")) == ["scenes", "statements"]
    assert kinds_for(declared("coarse")) == ["karpathy", "webdataset", "visual_genome", "nocaps", "scenes"]
    assert kinds_for(declared("caption")) == kinds_for(declared("retrieval")) == kinds_for(declared("coarse"))
    others = {"karpathy", "webdataset", "visual_genome", "nocaps", "scenes", "vqa", "statements"}
    for name in ("fine", "detection", "grounding", "refexp"):
        assert kinds_for(declared(name)) == [kind for kind in FORMATS if kind not in others]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["task.head=retinanet"], "task.head: retinanet with task.blocks=2: these are DynamicHead's blocks"),
        (
            ["task.head=faster_rcnn", "task.head_fusion=deep"],
            "task.head: faster_rcnn with task.head_fusion=deep: that fusion stands before DynamicHead's blocks",
        ),
        (["task.head=fcos"], "task.head: unknown value 'fcos'; valid: atss, retinanet, faster_rcnn"),
    ],
)
def test_settings_of_dynamic_head_are_taken_by_another(overrides, told):
    with pytest.raises(RecipeError) as error:
        resolve_recipe("tiny_detection", overrides)
    assert told in str(error.value)
    assert resolve_recipe("tiny_detection", ["task.head=retinanet", "task.blocks=6"]).task.head == "retinanet"


@pytest.mark.parametrize(
    ("recipe", "metric", "kinds"),
    [
        ("tiny_detection", "refexp/acc@iou50", "phrases with boxes, and no source in data.val (scene_detection)"),
        ("tiny_detection", "grounding/any_box/r@1", "phrases with boxes, and no source in data.val (scene_detection)"),
        ("tiny_refexp", "detection/ap", "boxes with names, and no source in data.val (scene_referring)"),
        ("tiny_grounding", "detection/ap50", "boxes with names, and no source in data.val (scene_grounding)"),
        ("tiny_grounding", "lvis/fixed_ap", "boxes with names, and no source in data.val (scene_grounding)"),
    ],
)
def test_a_run_begins_whose_data_cannot_give_the_metric_of_its_best(recipe, metric, kinds):
    with pytest.raises(RecipeError) as error:
        resolve_recipe(recipe, [f"log.keep_best={metric}"])
    assert f"log.keep_best: {metric} is measured on {kinds} has any" in str(error.value)


@pytest.mark.parametrize(
    "source",
    ["{kind: odvg, jsonl: x, images: x}", "{kind: region_shards, shards: x}", "{kind: mdetr, json: x, images: x}"],
)
def test_a_metric_is_refused_that_a_format_may_give(source):
    assert resolve_recipe("tiny_refexp", [f"data.val=[{source}]", "log.keep_best=refexp/acc@iou50"])


def test_no_fusion_has_layers():
    with pytest.raises(RecipeError, match=r"model\.fusion: none with fusion_layers=2: leave one of them out"):
        resolve_recipe("tiny", ["model.fusion=none", "model.fusion_layers=2"])
    assert resolve_recipe("tiny", ["model.fusion=none"]).model.fusion == "none"
