"""From a file and a command line to a recipe: overrides, paths, shipped recipes, former names."""

import dataclasses
import shlex
from pathlib import Path

import pytest
import yaml
from good_recipe import GOOD, good, problems

from fiber_cli.config.recipe import LogSettings
from fiber_cli.config.resolve import find_recipe, parse_recipe, recipe_header, resolve_recipe, shipped_recipes
from fiber_cli.data.shard_paths import expand_braces
from fiber_cli.evaluation.names import DATASETS
from fiber_cli.settings import RecipeError
from fiber_cli.tasks import TASKS


def test_overrides_change_what_they_name_and_nothing_else():
    overrides = ("optim.lr=2", "data.train.0.count=1e3", "data.val.0.split=test", "log.every=3", "name=other")
    changed = good(*overrides)
    assert changed.optim.lr == 2.0
    assert changed.data.train[0].count == 1000
    assert changed.log.every == 3
    back = dataclasses.replace(
        changed,
        name="recipe",
        optim=dataclasses.replace(changed.optim, lr=0.001),
        log=LogSettings(),
        data=good("data.val.0.split=test").data,
    )
    assert back == good("data.val.0.split=test")


def test_not_yaml_not_a_mapping_and_empty():
    with pytest.raises(RecipeError, match=r"good.yaml:2: not valid YAML"):
        parse_recipe("model: {preset: tiny}\n\t- x", "good.yaml")
    assert problems(text="[1, 2]") == ["good.yaml:1: recipe: wanted a mapping, got [1, 2]"]
    missing = problems(text="")
    assert "good.yaml:1: task: 'name' is missing; one of " + ", ".join(TASKS) in missing
    for key in ("model.preset", "data.train", "optim.lr", "runtime.micro_batch", "runtime.global_batch"):
        assert any(f" {key}: missing" in line for line in missing)


def test_paths_start_from_the_root_else_from_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = "data.train=[{kind: karpathy, json: d/x.json, images: /abs/images}]"
    (settings,) = good(source).data.train
    assert (settings.json, settings.images) == (str(tmp_path / "d/x.json"), "/abs/images")
    data = good(source, "data.root=../else").data
    assert data.train[0].json == str(tmp_path.parent / "else/d/x.json")
    assert data.root == str(tmp_path.parent / "else")


def test_paths_of_the_home_folder_and_of_the_task_are_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    task = "task={name: vqa, answers: ~/a/answers.json}"
    sources = "data={train: [{kind: vqa, questions: q.json, images: i}], root: ~/data}"
    recipe = good(task, sources)
    assert recipe.task.answers == str(tmp_path / "a/answers.json")
    assert recipe.data.train[0].questions == str(tmp_path / "data/q.json")
    assert recipe.data.train[0].annotations is None


def test_folders_by_data_source(tmp_path):
    recipe = resolve_recipe("fine", [f"data.root={tmp_path}"])
    assert recipe.data.train[0].images == {
        "coco": str(tmp_path / "coco/images/train2014"),
        "vg": str(tmp_path / "vg/images"),
    }


def test_a_file_that_a_command_made_here_is_not_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/vqa").mkdir(parents=True)
    (tmp_path / "vqa").mkdir()

    def answers() -> str:
        return resolve_recipe("vqav2", ["data.root=data"]).task.answers

    assert answers() == str(tmp_path / "data/vqa/answers.json")
    (tmp_path / "vqa/answers.json").touch()
    assert answers() == str(tmp_path / "vqa/answers.json")
    # What lies with the data comes first.
    (tmp_path / "data/vqa/answers.json").touch()
    assert answers() == str(tmp_path / "data/vqa/answers.json")
    # Other files are those of the data alone.
    (tmp_path / "vqa/v2_mscoco_train2014_annotations.json").touch()
    recipe = resolve_recipe("vqav2", ["data.root=data"])
    assert recipe.data.train[0].annotations == str(tmp_path / "data/vqa/v2_mscoco_train2014_annotations.json")


#: Below data.root, as the data sets are published; folders of shards apart.
OFFICIAL_FILES = {
    "coco/dataset_coco.json",
    "coco/annotations/instances_train2017.json",
    "coco/annotations/instances_val2017.json",
    "flickr30k/dataset_flickr30k.json",
    "vg/region_descriptions.json",
    "vg/image_data.json",
    "vqa/v2_OpenEnded_mscoco_train2014_questions.json",
    "vqa/v2_OpenEnded_mscoco_val2014_questions.json",
    "vqa/v2_mscoco_train2014_annotations.json",
    "vqa/v2_mscoco_val2014_annotations.json",
    "nlvr2/train.json",
    "nlvr2/dev.json",
    "mixed/final_mixed_train_no_coco.json",
    "mdetr/final_flickr_separateGT_train.json",
    "mdetr/finetune_{refcoco_val,refcoco_testA,refcoco_testB,refcoco+_val,refcoco+_testA,refcoco+_testB,refcocog_val,"
    "refcocog_test*}.json",
    "objects365/annotations/objects365_train.json",
    "lvis/lvis_v1_train.json",
    "lvis/lvis_v1_minival_inserted_image_name.json",
    "mdetr/finetune_refcoco_train.json",
    "mdetr/finetune_refcoco_val.json",
    "mdetr/finetune_refcoco+_train.json",
    "mdetr/finetune_refcoco+_val.json",
    "mdetr/finetune_refcocog_train.json",
    "mdetr/finetune_refcocog_val.json",
    "odinw/Aquarium/Aquarium Combined.v2-raw-1024.coco/train/annotations_without_background.json",
    "odinw/Aquarium/Aquarium Combined.v2-raw-1024.coco/train/fewshot_train_shot3_seed3.json",
    "odinw/Aquarium/Aquarium Combined.v2-raw-1024.coco/valid/annotations_without_background.json",
}
FILE_SETTINGS = ("json", "questions", "annotations", "jsonl", "regions", "image_data", "exclude")


def recipes_of_public_data() -> list[str]:
    return [name for name, path in shipped_recipes().items() if "data.root=/data" in recipe_header(path)["command"]]


def paper_recipes() -> list[str]:
    """Of them those that reproduce a row."""
    shipped = shipped_recipes()
    return [name for name in recipes_of_public_data() if recipe_header(shipped[name])["paper"] != "none"]


@pytest.mark.parametrize("name", recipes_of_public_data())
def test_a_recipe_wants_a_file_that_nobody_publishes(name):
    recipe = resolve_recipe(name, ["data.root=/data"])
    for source in (*recipe.data.train, *recipe.data.val):
        for setting in FILE_SETTINGS:
            named = vars(source).get(setting)
            for file in [named] if isinstance(named, str) else named or ():
                assert file.removeprefix("/data/") in OFFICIAL_FILES


def test_a_recipe_of_public_data_does_not_say_how_it_is_evaluated():
    assert len(paper_recipes()) == 25
    for name in recipes_of_public_data():
        header = recipe_header(shipped_recipes()[name])
        assert f"runs/{name}" in header["evaluate"]
        for command in header["evaluate"].split("&&"):
            dataset = shlex.split(command)[2]
            assert dataset in DATASETS or dataset.endswith(".json")


def test_odinw_is_tuned_otherwise_than_published():
    """README of the published fine stage: once an epoch, no moving average, FREEZE_CONV_BODY_AT 2, decay 0.05."""
    for name in ("odinw", "odinw_few_shot"):
        recipe = resolve_recipe(name)
        assert recipe.log.validate_every == "epoch"
        assert (recipe.log.stop_after, recipe.optim.schedule, recipe.optim.patience) == (8, "plateau", 3)
        assert recipe.runtime.ema is None
        assert recipe.task.frozen_stages == 1
        assert (recipe.optim.weight_decay, recipe.optim.epochs, recipe.runtime.global_batch) == (0.05, 200, 4)
    assert resolve_recipe("odinw_few_shot").data.train[0].copies == 4


def test_shipped_recipes_are_short_and_say_what_they_are():
    shipped = shipped_recipes()
    assert {"4m", "flickr8k", "tiny"} <= shipped.keys()
    for name, path in shipped.items():
        assert len(path.read_text().splitlines()) <= 60
        header = recipe_header(path)
        assert {"about", "command", "reproduces", "paper", "hardware"} <= header.keys()
        assert "fiber" in header["command"]
        assert f"--recipe {name}" in header["command"]


@pytest.mark.parametrize("size", ["small", "base"])
def test_a_task_lacks_a_recipe_for_one_gpu(size):
    for name in ("detection", "refcoco", "retrieval", "vqa", "caption"):
        recipe = resolve_recipe(f"{name}_{size}")
        assert recipe.model.preset == size
        assert recipe.model.swin
        assert recipe.model.roberta == recipe.model.tokenizer
        assert recipe.runtime.activation_checkpointing
        assert recipe.runtime.precision == "bf16"


def test_text_weights_bring_their_tokenizer_unless_another_is_named():
    assert good("model.roberta=roberta-base").model.tokenizer == "roberta-base"
    assert good("model.roberta=roberta-base", "model.tokenizer=mine").model.tokenizer == "mine"
    assert good().model.tokenizer == "builtin"


@pytest.mark.parametrize("recipe", ["detection_small", "retrieval_base", "4m"])
def test_other_text_weights_on_the_command_line_keep_the_tokenizer_of_those_in_the_file(recipe):
    for weights in ("camembert-base", "./folder"):
        assert resolve_recipe(recipe, [f"model.roberta={weights}"]).model.tokenizer == weights
    with_both = resolve_recipe(recipe, ["model.roberta=./folder", "model.tokenizer=./words"])
    assert with_both.model.tokenizer == "./words"
    in_file = resolve_recipe(recipe).model
    assert in_file.tokenizer == in_file.roberta
    assert resolve_recipe(recipe, ["model.roberta=null"]).model.tokenizer == in_file.tokenizer


def test_4m_follows_the_paper():
    recipe = resolve_recipe("4m")
    optim = recipe.optim
    assert recipe.runtime.global_batch == 4096
    assert optim.steps == 100_000
    assert optim.warmup == 1000
    assert optim.lr == 1e-4
    assert optim.lr * optim.cross_modal_mult == pytest.approx(5e-4)
    assert (optim.betas, optim.eps, optim.weight_decay, optim.schedule) == ((0.9, 0.98), 1e-8, 0.01, "linear")
    assert recipe.model.image_size == 384
    assert recipe.model.text_length == 40
    kinds = [settings.kind for settings in recipe.data.train]
    assert kinds == ["karpathy", "webdataset", "webdataset", "visual_genome"]
    assert recipe.data.train[3].exclude == recipe.data.train[0].json
    assert recipe.runtime.micro_steps(64) == 1


def test_a_recipe_of_the_paper_hides_where_it_departs():
    """From the paper and from the published configuration: in its header, precision first of all."""
    for name in paper_recipes():
        header = recipe_header(shipped_recipes()[name])
        assert "precision" in header["departures"] or name == "4m_clean"  # which has those of 4m


def test_a_stage_of_the_cleaned_chain_keeps_what_refcoco_is_tested_on():
    stages = {"4m_clean": "4m", "fine_clean": "fine"}
    for name, plain in stages.items():
        cleaned, whole = resolve_recipe(name), resolve_recipe(plain)
        assert [source.kind for source in cleaned.data.train] == [source.kind for source in whole.data.train]
        excluded = [str(source.exclude) for source in cleaned.data.train if source.kind != "webdataset"]
        held_out = {Path(pattern).name for pattern in expand_braces(excluded[0])}
        assert held_out == {
            *("finetune_refcoco_val.json", "finetune_refcoco_testA.json", "finetune_refcoco_testB.json"),
            *("finetune_refcoco+_val.json", "finetune_refcoco+_testA.json", "finetune_refcoco+_testB.json"),
            *("finetune_refcocog_val.json", "finetune_refcocog_test*.json"),
        }
        header = recipe_header(shipped_recipes()[name])
        assert "4m_clean" in header["command"]
    assert (resolve_recipe("fine_clean").optim.warmup, resolve_recipe("fine").optim.warmup) == (5000, 2000)
    assert resolve_recipe("fine_clean").model.norm_image_query is True
    for name in ("refcoco", "refcoco_plus", "refcocog"):
        assert recipe_header(shipped_recipes()[name])["command"].endswith("--init-from runs/fine_clean")


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
    with pytest.raises(RecipeError, match=r"unknown recipe 'tinny' .did you mean 'tiny'.*valid: 4m, "):
        find_recipe("tinny")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"binary.yaml: not UTF-16, as its mark says, at byte 3"):
        resolve_recipe("binary.yaml")


#: Former name → its section and its present name, a task that has it, and a value that is not its default.
RENAMED = {
    "task.published_names": ("task", "names_as_published", "fine", "true"),
    "task.gold_published": ("task", "gold_as_published", "caption", "true"),
    "task.published_search": ("task", "search_as_published", "caption", "true"),
    "optim.published": ("optim", "as_published", "coarse", "coarse"),
}
KINDS = {"fine": "scene_detection", "caption": "scenes", "coarse": "scenes"}


def recipe_of(name: str, section: str = "task", settings: str = "") -> str:
    """A recipe of a task, with settings added to one of its sections."""
    sections = {
        "model": "preset: tiny",
        "task": f"name: {name}",
        "data": f"train: [{{kind: {KINDS[name]}}}]",
        "optim": "lr: 1e-3, steps: 100",
        "runtime": "micro_batch: 8, global_batch: 32",
    }
    sections[section] += settings
    return "\n".join(f"{section}: {{{content}}}" for section, content in sections.items())


@pytest.mark.parametrize("former", RENAMED)
def test_recipes_with_former_names_still_read(former):
    section, present, task, value = RENAMED[former]
    _, old = former.split(".")
    read = parse_recipe(recipe_of(task, section, f", {old}: {value}"), "old.yaml")
    assert getattr(getattr(read, section), present) == yaml.safe_load(value)
    assert read == parse_recipe(recipe_of(task, section, f", {present}: {value}"), "new.yaml")
    assert f"  {present}: " in read.to_yaml()
    assert f"  {old}: " not in read.to_yaml()


@pytest.mark.parametrize("former", RENAMED)
def test_former_names_are_overrides_too(former):
    section, present, task, value = RENAMED[former]
    read = parse_recipe(recipe_of(task), "new.yaml", [f"{former}={value}"])
    assert getattr(getattr(read, section), present) == yaml.safe_load(value)


@pytest.mark.parametrize("former", RENAMED)
def test_a_former_name_beside_the_present_one_is_an_error(former):
    section, present, task, value = RENAMED[former]
    _, old = former.split(".")
    told = problems(text=recipe_of(task, section, f", {present}: {value}, {old}: {value}"))
    line = {"task": 2, "optim": 4}[section]
    assert told == [f"good.yaml:{line}: {section}.{present}: given twice, first at good.yaml:{line}"]
    told = problems(f"{former}={value}", f"{section}.{present}={value}", text=recipe_of(task))
    assert told == [f"command line: {section}.{present}: given twice, first at command line"]


@pytest.mark.parametrize("former", RENAMED)
def test_an_override_replaces_a_setting_that_the_file_has_under_its_other_name(former):
    section, present, task, value = RENAMED[former]
    _, old = former.split(".")
    unset = "none" if present == "as_published" else "false"
    for in_file, on_command_line in ((old, present), (present, old)):
        text = recipe_of(task, section, f", {in_file}: {value}")
        read = parse_recipe(text, "x.yaml", [f"{section}.{on_command_line}={unset}"])
        assert getattr(getattr(read, section), present) == yaml.safe_load(unset)


@pytest.mark.parametrize("name", ["4m", "fine", "fine_no_coarse"])
def test_pretraining_chooses_its_checkpoint_by_data_that_its_tables_test_on(name):
    assert resolve_recipe(name, ["data.root=/data"]).log.keep_best is None
