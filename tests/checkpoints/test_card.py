"""Model cards: metadata that the hub reads, and all that a reader wants to know, in Markdown that no name breaks."""

import dataclasses
import json
import shlex

import pytest
import typer
import yaml

from fiber_cli.checkpoints.card import CardFacts, is_unchanged, model_card
from fiber_cli.checkpoints.config import CheckpointConfig
from fiber_cli.checkpoints.hub_names import HubName
from fiber_cli.checkpoints.run_facts import Measured, RunFacts
from fiber_cli.data.sources import FORMATS, source_format
from fiber_cli.model.config import TINY
from fiber_cli.tasks import TASKS, declared

NAME = HubName("org/my-model", "v1")
RECIPE = {"model": {"preset": "tiny"}, "data": {"train": [{"kind": "coco", "json": "train.json", "images": "train"}]}}
SUMMARY = {"steps": 10, "images": 80, "seconds": 3.5, "ranks": 1, "device": "x86_64", "fiber": "0.2.0", "torch": "2"}
NOTHING = RunFacts({}, {}, None, None, [])


def card_of(task, run=NOTHING, labels=None, licence="mit", has_words=False, **settings):
    config = CheckpointConfig(TINY, declared(task).settings(name=task, **settings), 30, labels, "builtin")
    return model_card(CardFacts(NAME, config, run, licence, 1234567, has_words))


def metadata_of(card):
    return yaml.safe_load(card.split("---\n")[1])


@pytest.mark.parametrize("task", TASKS)
def test_the_hub_does_not_read_its_metadata(task):
    metadata = metadata_of(card_of(task))
    assert metadata["library_name"] == "fiber"
    assert metadata["license"] == "mit"
    assert {"fiber", task} <= set(metadata["tags"])


@pytest.mark.parametrize(
    ("task", "pipeline"),
    [
        ("detection", "zero-shot-object-detection"),
        ("vqa_generated", "visual-question-answering"),
        ("caption", "image-to-text"),
        ("coarse", None),
        ("nlvr2", None),
    ],
)
def test_the_hub_is_not_told_what_it_can_do(task, pipeline):
    assert metadata_of(card_of(task)).get("pipeline_tag") == pipeline


@pytest.mark.parametrize("task", TASKS)
def test_its_command_lines_are_none(task):
    from fiber_cli.cli.app import app

    commands = typer.main.get_command(app).commands
    block = card_of(task).split("```bash\n")[1].split("```")[0]
    for line in block.splitlines():
        program, verb, *words = shlex.split(line)
        assert program == "fiber"
        options = {option for parameter in commands[verb].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options
        assert words[words.index("--checkpoint") + 1] == "org/my-model@v1"
    python = card_of(task).split("```python\n")[1].split("```")[0]
    assert 'Fiber.from_pretrained("org/my-model@v1")' in python
    compile(python, "card", "exec")


def test_labels_break_the_example():
    labels = ('a "quoted" one', "b|c\nd", "back\\slash", "new\nline", "$(rm)")
    card = card_of("detection", labels=labels)
    assert '"a quoted one . b|c d . backslash"' in card
    assert r"b\|c\nd, back\slash, new\nline, $(rm)" in card
    compile(card.split("```python\n")[1].split("```")[0], "card", "exec")


def test_many_labels_fill_the_card():
    labels = tuple(f"name{number}" for number in range(3129))
    assert "name99 and 3029 more" in card_of("vqa", labels=labels)
    assert "name100" not in card_of("vqa", labels=labels)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"kind": "folder", "split": "train", "folder": "cells"}, "folder (split train, folder cells)"),
        ({"kind": "yolo", "data": "data.yaml", "shots": 3, "seed": 1}, "yolo (data data.yaml, shots 3, seed 1)"),
        (
            {"kind": "scenes", "weight": 2.0, "during": [0.0, 0.5]},
            "scenes (weight 2.0, during [0.0, 0.5])",
        ),
        ({"kind": "of_tomorrow", "a": 1, "b": None}, "of_tomorrow (a 1)"),
    ],
)
def test_what_an_entry_leaves_to_the_defaults_hides_what_it_says(given, told):
    whole = given
    if given["kind"] in FORMATS:
        settings = source_format(given["kind"]).settings(**{**given, "during": tuple(given.get("during", (0.0, 1.0)))})
        whole = yaml.safe_load(json.dumps(dataclasses.asdict(settings)))  # as in a resolved recipe
    card = card_of("detection", RunFacts({"data": {"train": [whole]}}, {}, None, None, []))
    assert f"| data | {told} |" in card


def test_task_data_recipe_and_figures_are_missing():
    measured = [Measured("the run's validation data", "", {"ap": 40.5}), Measured("my cells", "test", {"ap": 1 / 3})]
    run = RunFacts(RECIPE, SUMMARY, 9, HubName("org/base", "abc"), measured)
    card = card_of("detection", run, has_words=True)
    for text in (
        "| task | `detection`: ",
        "| data | coco (json train.json, images train) |",
        "| begun with | org/base@abc |",
        "| steps | 9 |",
        "| steps of the run | 10, 80 images, 3.5 s |",
        "model: {preset: tiny}",
        "| `ap` | 40.5 |",
        "On my cells test:",
        "| `ap` | 0.3333 |",
        "| licence | mit |",
        "| parameters | 1,234,567 |",
        "`words.txt`",
    ):
        assert text in card
    metadata = metadata_of(card)
    assert metadata["base_model"] == "org/base"
    (model,) = metadata["model-index"]
    assert model["name"] == "my-model"
    assert [result["metrics"][0]["value"] for result in model["results"]] == [40.5, 0.3333]
    assert model["results"][1]["dataset"] == {"name": "my cells", "type": "my-cells", "split": "test"}


def test_what_is_not_known_is_made_up():
    card = card_of("vqa", licence=None)
    assert "license" not in metadata_of(card)
    for text in ("| licence | not named: ", "The run that made it is not known here", "None were measured in its run."):
        assert text in card
    assert "words.txt" not in card


@pytest.mark.parametrize(
    "change", [("mit", "apache-2.0"), ("# org", "\n# org"), ("SHA-256 of", "SHA of"), ("-->\n", "-->")]
)
def test_a_changed_card_is_taken_for_fiber_s(change):
    card = card_of("vqa")
    assert is_unchanged(card)
    assert change[0] in card
    assert not is_unchanged(card.replace(*change))
    assert not is_unchanged(card + "More.\n")
    assert not is_unchanged("")
