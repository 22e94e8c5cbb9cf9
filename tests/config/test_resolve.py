"""From a file and a command line to a recipe: overrides, paths, shipped recipes, former names."""

import dataclasses

import pytest
import yaml
from good_recipe import GOOD, good, problems

from fiber_cli.config.recipe import LogSettings
from fiber_cli.config.resolve import find_recipe, parse_recipe, recipe_header, resolve_recipe, shipped_recipes
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


def test_shipped_recipes_are_short_and_say_what_they_are():
    shipped = shipped_recipes()
    assert {"4m", "flickr8k", "tiny"} <= shipped.keys()
    for name, path in shipped.items():
        assert len(path.read_text().splitlines()) <= 60
        header = recipe_header(path)
        assert {"about", "command", "reproduces", "paper", "hardware"} <= header.keys()
        assert "fiber" in header["command"]
        assert f"--recipe {name}" in header["command"]


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
    with pytest.raises(RecipeError, match=r"binary.yaml: cannot be read"):
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
