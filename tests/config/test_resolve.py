"""Recipes: strict reading, all errors at once, overrides, DeepSpeed's configuration."""

import dataclasses
import inspect
import re
import typing

import pytest
import yaml

from fiber_cli.config import settings
from fiber_cli.config import strict
from fiber_cli.errors import UserError
from fiber_cli.config.resolve import (
    RecipeError,
    deepspeed_config,
    find_recipe,
    parse_recipe,
    recipe_header,
    resolve_recipe,
    schema_markdown,
    shipped_recipes,
)

GOOD = """\
model: {preset: tiny}
task:
  name: coarse
data:
  train:
    - {kind: scenes, count: 100}
    - kind: webdataset
      shards: [a.tar, b/*.tar]
  val: [{kind: scenes, split: val, count: 20}]
optim:
  lr: 1e-3
  steps: 100
runtime:
  micro_batch: 8
  global_batch: 32
"""


def good(*overrides: str):
    return parse_recipe(GOOD, "good.yaml", overrides)


def problems(*overrides: str, text: str = GOOD) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "good.yaml", overrides)
    first, *rest = str(caught.value).splitlines()
    assert first == f"{len(rest)} problem{'s' * (len(rest) != 1)} in the recipe:"
    return [line.strip() for line in rest]


def test_values_types_and_defaults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = good()
    assert recipe.optim.lr == 0.001 and type(recipe.optim.lr) is float
    assert recipe.optim.steps == 100 and recipe.optim.epochs is None
    assert recipe.optim.betas == (0.9, 0.98)
    assert recipe.task.itm_negatives == "hard" and type(recipe.task.mlm) is float
    assert recipe.data.train[0] == settings.ScenesSource(kind="scenes", count=100)
    assert recipe.data.train[1].shards == (str(tmp_path / "a.tar"), str(tmp_path / "b/*.tar"))
    assert recipe.log == settings.LogSettings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.optim.lr = 1.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5), ("1E5", 1e5), (".5", 0.5), ("5.", 5.0), ("1_000", 1000), ("010", 10), ("-3", -3),
        ("12:30", "12:30"), ("yes", "yes"), ("on", "on"), ("true", True), ("False", False), ("null", None),
        ("~", None), ("", None), ("'5'", "5"), ("2024-01-02", "2024-01-02"), (".inf", float("inf")),
        ("1.2.3", "1.2.3"), ("e5", "e5"),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text, value):
    read = strict.plain(strict.compose(text, "x"))
    assert read == value and type(read) is type(value)


def test_all_errors_come_at_once_with_place_key_value_and_nearest_name():
    text = """\
model: {preset: tinny}
task: {name: coarse, itc: 0}
data:
  train:
    - {kind: karpaty}
    - {kind: karpathy, json: 5}
    - {kind: scenes, weight: 0}
  global_batch: 5
optim:
  lr: fast
  warm_up: 5
  betas: [0.9]
  steps: 5
  epochs: 6
runtime: {micro_batch: 8, global_batch: 100, zero_stage: true, compile: yes, seed: 1.5, seed: 2}
"""
    expected = [
        r"good.yaml:1: model.preset: unknown value 'tinny' \(did you mean 'tiny'\?\); valid: tiny, base",
        r"good.yaml:5: data.train.0: unknown kind 'karpaty' \(did you mean 'karpathy'\?\); valid: .*",
        r"good.yaml:6: data.train.1.json: wanted text, got 5",
        r"good.yaml:6: data.train.1.images: missing .*",
        r"good.yaml:7: data.train.2.weight: 0.0 is out of range, must be greater than 0",
        r"good.yaml:8: data.global_batch: unknown key 'global_batch' "
        r"\(did you mean 'runtime.global_batch'\?\); valid: .*",
        r"good.yaml:10: optim.lr: wanted a number, got 'fast'",
        r"good.yaml:11: optim.warm_up: unknown key 'warm_up' \(did you mean 'warmup'\?\); valid: .*",
        r"good.yaml:12: optim.betas: wanted a list of 2, got \[0.9\]",
        r"good.yaml:15: runtime.zero_stage: unknown value 'True'; valid: 0, 1, 2, 3",
        r"good.yaml:15: runtime.compile: wanted true or false, got 'yes'",
        r"good.yaml:15: runtime.seed: wanted a whole number, got 1.5",
        r"good.yaml:15: runtime.seed: given twice, first at good.yaml:15",
        r"good.yaml:2: task.itm_negatives: hard negatives .*",
        r"good.yaml:10: optim: steps=5 and epochs=6: give exactly one of them",
        r"good.yaml:15: runtime.global_batch: 100 is no multiple .* 96 or 104, or micro_batch to 5",
    ]
    found = problems(text=text)
    assert len(found) == len(expected), found
    for line, pattern in zip(found, expected, strict=True):
        assert re.fullmatch(pattern, line), (line, pattern)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lr", "'optim.lr' is not of the form section.key=value"),
        ("optim..lr=1", "'optim..lr=1' is not of the form"),
        ("optim.lr=[", "optim.lr: '[' is not valid YAML"),
        ("optim.lrr=1", "optim.lrr: unknown key 'lrr' (did you mean 'lr'?)"),
        ("optim.lr=-1", "optim.lr: -1.0 is out of range, must be greater than 0"),
        ("optim.lr=.inf", "optim.lr: wanted a finite number, got inf"),
        ("optim.lr.x=1", "optim.lr.x: '1e-3' is a single value, it has no 'x'"),
        ("data.train.2.weight=1", "data.train.2.weight: the list has 2 items, counted from 0"),
        ("data.train.first.weight=1", "data.train.first.weight: the list has 2 items"),
        ("data.train=scenes", "data.train: wanted a list, got 'scenes'"),
        ("data.train=[scenes]", "data.train.0: wanted a mapping with 'kind', got 'scenes'"),
        ("data.train=[{weight: 1}]", "data.train.0: 'kind' is missing; one of karpathy, webdataset"),
        ("data.train=[]", "data.train: names no source"),
        ("data=5", "data: wanted a mapping, got 5"),
        ("task.name=vqq", "task: unknown name 'vqq' (did you mean 'vqa'?); valid: coarse, vqa"),
        ("deepspeed.optimizer.type=Adam", "deepspeed: leave out what follows from the other sections"),
    ],
)
def test_errors_of_overrides_name_the_command_line(override, message):
    (line,) = problems(override)
    assert line.startswith(f"command line: {message}"), line


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.image_size=100"], "model.image_size: 100 is not a multiple of 32"),
        (["model.roberta=roberta-base"], "model.tokenizer: the weights 'roberta-base' need their own"),
        (["task.mlm=0", "task.itm=0", "task.itc=0"], "task: all its weights are 0"),
        (["task.itc=0"], "task.itm_negatives: hard negatives are drawn by ITC similarity"),
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
        ["optim.steps=null", "optim.epochs=3", "optim.warmup=1000"],
        ["optim.warmup=99"],
        ["runtime.ema=0.999", "runtime.zero_stage=2", "runtime.offload=cpu"],
        ["log.validate_every=5", "log.keep_best=itc/tr@10"],
    ],
)
def test_settings_that_do(overrides):
    good(*overrides)


def test_overrides_change_what_they_name_and_nothing_else():
    overrides = ("optim.lr=2", "data.train.0.count=1e3", "data.val.0.split=test", "log.every=3", "name=other")
    changed = good(*overrides)
    assert changed.optim.lr == 2.0 and changed.data.train[0].count == 1000 and changed.log.every == 3
    back = dataclasses.replace(
        changed,
        name="recipe",
        optim=dataclasses.replace(changed.optim, lr=0.001),
        log=settings.LogSettings(),
        data=good("data.val.0.split=test").data,
    )
    assert back == good("data.val.0.split=test")


def test_not_yaml_not_a_mapping_and_empty():
    with pytest.raises(RecipeError, match=r"good.yaml:2: not valid YAML"):
        parse_recipe("model: {preset: tiny}\n\t- x", "good.yaml")
    assert problems(text="[1, 2]") == ["good.yaml:1: recipe: wanted a mapping, got [1, 2]"]
    missing = problems(text="")
    assert "good.yaml:1: task: 'name' is missing; one of " + ", ".join(strict.forms(settings.AnyTask)) in missing
    for key in ("model.preset", "data.train", "optim.lr", "runtime.micro_batch", "runtime.global_batch"):
        assert any(f" {key}: missing" in line for line in missing)


def test_paths_start_from_the_root_else_from_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = "data.train=[{kind: karpathy, json: d/x.json, images: /abs/images}]"
    (spec,) = good(source).data.train
    assert (spec.json, spec.images) == (str(tmp_path / "d/x.json"), "/abs/images")
    data = good(source, "data.root=../else").data
    assert data.train[0].json == str(tmp_path.parent / "else/d/x.json")
    assert data.root == str(tmp_path.parent / "else")


def test_resolved_yaml_reads_back_equal_from_anywhere(tmp_path, monkeypatch):
    for path in shipped_recipes().values():
        recipe = resolve_recipe(str(path), ["deepspeed.zero_optimization.reduce_bucket_size=5e8"])
        file = tmp_path / "recipe.yaml"
        file.write_text(recipe.to_yaml())
        monkeypatch.chdir(tmp_path)
        assert resolve_recipe(str(file)) == recipe
        monkeypatch.undo()
        assert recipe.name == path.stem
        assert yaml.safe_load(recipe.to_yaml())["runtime"]["seed"] == 0


def test_shipped_recipes_are_short_and_say_what_they_are():
    shipped = shipped_recipes()
    assert {"4m", "flickr8k", "tiny"} <= shipped.keys()
    for name, path in shipped.items():
        assert len(path.read_text().splitlines()) <= 60
        header = recipe_header(path)
        assert {"about", "command", "reproduces", "paper", "hardware"} <= header.keys()
        assert "fiber" in header["command"] and f"--recipe {name}" in header["command"]


def test_4m_follows_the_paper():
    recipe = resolve_recipe("4m")
    optim = recipe.optim
    assert recipe.runtime.global_batch == 4096 and optim.steps == 100_000 and optim.warmup == 1000
    assert optim.lr == 1e-4 and optim.lr * optim.cross_modal_mult == pytest.approx(5e-4)
    assert (optim.betas, optim.eps, optim.weight_decay, optim.schedule) == ((0.9, 0.98), 1e-8, 0.01, "linear")
    assert recipe.model.image_size == 384 and recipe.model.text_length == 40
    kinds = [spec.kind for spec in recipe.data.train]
    assert kinds == ["karpathy", "webdataset", "webdataset", "visual_genome"]
    assert recipe.data.train[3].exclude == recipe.data.train[0].json
    assert recipe.runtime.micro_steps(64) == 1


def test_header_lines_continue(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("# about: one\n#   two: three four\n# command: fiber x\nmodel:\n# paper: no part\n")
    assert recipe_header(file) == {"about": "one", "two": "three four", "command": "fiber x"}
    file.write_text("# about: one\n#   and more\nmodel: {}\n")
    assert recipe_header(file) == {"about": "one and more"}


def test_recipes_are_found_by_file_name_and_path(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert find_recipe("tiny").name == "tiny.yaml"
    assert capsys.readouterr().err == ""
    assert find_recipe("recipes/tiny.yaml") == find_recipe("tiny")
    assert "recipes/tiny.yaml does not exist" in capsys.readouterr().err
    (tmp_path / "tiny").mkdir()
    assert find_recipe("tiny").is_file()
    (tmp_path / "mine.yaml").write_text(GOOD)
    assert resolve_recipe("mine.yaml").name == "mine"
    with pytest.raises(RecipeError, match="unknown recipe 'tinny' .did you mean 'tiny'.*valid: 4m, "):
        find_recipe("tinny")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="binary.yaml: cannot be read"):
        resolve_recipe("binary.yaml")


def test_global_batch_must_divide_and_the_error_names_values_that_do():
    recipe = good()
    assert [recipe.runtime.micro_steps(world) for world in (1, 2, 4)] == [4, 2, 1]
    with pytest.raises(RecipeError, match="set global_batch to 24 or 48") as caught:
        recipe.runtime.micro_steps(3)
    assert isinstance(caught.value, UserError) and "or micro_batch" not in str(caught.value)
    with pytest.raises(RecipeError, match="set global_batch to 64, or micro_batch to 4"):
        recipe.runtime.micro_steps(8)
    assert good("runtime.micro_batch=4").runtime.micro_steps(8) == 1


def test_warm_up_is_a_share_or_steps():
    assert settings.warmup_steps(0.1, 250) == 25
    assert settings.warmup_steps(7, 250) == 7
    with pytest.raises(RecipeError, match="optim.warmup: 250 must end before the run's 250 steps do"):
        settings.warmup_steps(250, 250)


def test_deepspeed_config():
    config = deepspeed_config(good(), 2)
    assert config["train_micro_batch_size_per_gpu"] == 8 and config["gradient_accumulation_steps"] == 2
    assert config["zero_optimization"] == {"stage": 0} and config["gradient_clipping"] == 0.0
    assert not {"optimizer", "scheduler", "fp16", "bf16", "torch_autocast"} & config.keys()
    config = deepspeed_config(
        good(
            "runtime.zero_stage=2",
            "runtime.offload=cpu",
            "runtime.precision=bf16",
            "runtime.clip=1",
            "deepspeed.zero_optimization.reduce_bucket_size=5e8",
            "deepspeed.flops_profiler={enabled: true}",
        ),
        1,
    )
    assert config["zero_optimization"] == {
        "stage": 2, "offload_optimizer": {"device": "cpu"}, "reduce_bucket_size": 5e8
    }  # fmt: skip
    assert config["torch_autocast"] == {"enabled": True, "dtype": "bfloat16"}
    assert config["gradient_clipping"] == 1.0 and config["flops_profiler"] == {"enabled": True}
    assert config["zero_force_ds_cpu_optimizer"] is False


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_deepspeed_reads_its_config_as_meant(precision):
    import torch
    from deepspeed.runtime.config import DeepSpeedConfig

    overrides = [f"runtime.precision={precision}", "runtime.zero_stage=1", "runtime.clip=0.5"]
    read = DeepSpeedConfig(deepspeed_config(good(*overrides), 1))
    assert (read.train_batch_size, read.gradient_accumulation_steps) == (32, 4)
    assert read.zero_optimization_stage == 1 and read.gradient_clipping == 0.5
    assert not read.bfloat16_config.enabled and not read.float16_config.enabled
    assert read.torch_autocast_enabled is (precision != "fp32")
    assert read.torch_autocast_dtype == {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)


def test_schema_names_every_key_once_with_its_default():
    tables = schema_markdown().split("\n## ")
    sections = {block.splitlines()[0]: block for block in tables}
    for name, forms in settings.SECTIONS.items():
        for tag, cls in forms.items():
            wanted = (f"`{name}`", f"`{tag}`" if tag else "")
            (block,) = [text for title, text in sections.items() if all(part in title for part in wanted)]
            keys = re.findall(r"^\| `(\w+)` \|", block, flags=re.MULTILINE)
            assert keys == [f.name for f in dataclasses.fields(cls)]
    assert "| `zero_stage` | `0`, `1`, `2`, `3` | `0` |" in sections["`runtime`"]
    assert "| `lr` | a number, greater than 0 | required | Peak learning rate" in sections["`optim`"]
    assert "an item of `data.train` or `data.val`: `visual_genome`" in sections
    titles = " ".join(title for title in sections if "data.train" in title)
    assert all(titles.count(f"`{kind}`") == 1 for kind in strict.forms(settings.AnySource))


def test_every_field_is_documented():
    classes = [cls for forms in settings.SECTIONS.values() for cls in forms.values()]
    for cls in [*classes, *strict.forms(settings.AnySource).values()]:
        for f in dataclasses.fields(cls):
            tag = f.name in ("kind", "name") and typing.get_origin(f.type) is typing.Literal
            assert tag or f.metadata["doc"].endswith("."), (cls, f.name)


def test_source_settings_are_arguments_of_the_sources():
    from fiber_cli.data.sources import SOURCES, source_class

    forms = strict.forms(settings.AnySource)
    assert forms.keys() == SOURCES.keys() - {"nocaps"}  # for evaluation only
    for kind, cls in forms.items():
        wanted = {f.name for f in dataclasses.fields(cls)} - {"kind", "weight"}
        parameters = inspect.signature(source_class(kind)).parameters
        assert wanted <= parameters.keys(), kind
        required = {name for name, p in parameters.items() if p.default is inspect.Parameter.empty}
        assert required <= wanted, kind
    spec = settings.VisualGenomeSource(kind="visual_genome", regions="r", images="i", weight=2.0)
    assert spec.arguments() == {"regions": "r", "images": "i"}


def test_presets_and_tasks_are_those_of_the_program():
    from fiber_cli.model.config import PRESETS
    from fiber_cli.tasks import TASKS

    assert set(typing.get_args(settings.ModelSettings.__annotations__["preset"])) == PRESETS.keys()
    assert settings.SECTIONS["task"].keys() == TASKS.keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.augment=randaugment", "have their own transform"),
        ("data.captions=each", "captions with boxes come one by one"),
        ("task.short_sides=[]", "task.short_sides: names no size"),
        ("task.control=[0.5, 0.5, 0.5]", "is more than 1 in all"),
        ("data.val=[{kind: coco, json: a, images: a}, {kind: coco, json: b, images: b}]", "go by odinw/ap"),
        ("log.keep_best=odinw/ap", "is the mean of several sets"),
        ("log={stop_after: 8}", "log.stop_after goes by it"),
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
    with pytest.raises(RecipeError, match="ends the run before optim.patience=3 lowers the rate"):
        resolve_recipe("tiny_fine", ["optim.schedule=plateau", "log.stop_after=3"])
    pair = "data.val=[{kind: mdetr, json: a, images: a}, {kind: mdetr, json: b, images: b}]"
    with pytest.raises(RecipeError, match="refexp/acc@iou50 of several sets is not one number"):
        resolve_recipe("tiny_fine", [pair, "log.keep_best=refexp/acc@iou50"])


def test_folders_by_data_source(tmp_path):
    recipe = resolve_recipe("fine", [f"data.root={tmp_path}"])
    assert recipe.data.train[0].images == {
        "coco": str(tmp_path / "coco/images/train2014"),
        "vg": str(tmp_path / "vg/images"),
    }
