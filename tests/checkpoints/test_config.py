"""config.json: what is written is read, older files are read, and odd ones are told."""

import dataclasses
import json

import pytest

from fiber_cli.checkpoints.config import FORMAT, CheckpointConfig, read_config
from fiber_cli.errors import UserError
from fiber_cli.model.config import TINY
from fiber_cli.settings import Owner
from fiber_cli.tasks import TASKS, declared


def make(name, **settings):
    task = declared(name).settings(name=name, **settings)
    return CheckpointConfig(TINY, task, text_length=40, labels=("a", "b"), tokenizer="builtin")


def write(folder, content):
    (folder / "config.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


@pytest.mark.parametrize("name", TASKS)
def test_configs_of_every_task_are_read_as_written(tmp_path, name):
    config = make(name)
    content = config.to_json()
    assert content["format"] == FORMAT
    assert read_config(write(tmp_path, content)) == config


def test_settings_of_the_run_alone_are_not_kept(tmp_path):
    config = make("caption", beam=2, cider_df="/a/path.json")
    restored = read_config(write(tmp_path, config.to_json())).task
    assert restored == dataclasses.replace(config.task, cider_df=None)
    for setting in dataclasses.fields(config.task)[1:]:
        kept = setting.name in config.to_json()["task"]
        assert kept == (setting.metadata["owner"] in (Owner.MODEL, Owner.READER)), setting.name


def format_1(name, settings, **preprocessing):
    preprocessing = {"image_size": [64, 64], "text_length": 40, **preprocessing}
    task = {"name": name, **settings}
    return {
        "format": 1,
        "model": TINY.to_dict(),
        "task": task,
        "preprocessing": preprocessing,
        "labels": None,
        "tokenizer": "builtin",
    }


PAIR_SETTINGS_IN_FORMAT_1 = {
    "itm": 0.5,
    "itc": 1.0,
    "itm_negatives": "hard",
    "itm_pairs": 5,
    "queue_size": 0,
    "itc_detach_keys": False,
    "itc_queue_noise": False,
    "temperature": 0.07,
}
DETECTOR_SETTINGS_IN_FORMAT_1 = {
    "channels": 64,
    "blocks": 2,
    "drop_block": 0.0,
    "log_scale": -1.5,
    "frozen_stages": 0,
    "unmatched_target": "none",
    "score_threshold": 0.05,
    "pre_nms_topk": 1000,
    "nms_iou": 0.6,
    "max_detections": 100,
    "aggregation": "mean",
}
CAPTION_SETTINGS_IN_FORMAT_1 = {
    "objective": "gold",
    "gold_refresh": 1000,
    "gold_floor": 0.1,
    "gold_published": False,
    "cider_samples": 5,
    "cider_weight": 0.7,
    "beam": 3,
    "published_search": False,
    "max_length": 40,
    "cls_id": 0,
    "sep_id": 2,
    "pad_id": 1,
    "mask_id": 1999,
}
SIZES_IN_FORMAT_1 = {"short_side": 128, "longest_side": 160, "published_names": False}
#: Task → what version 0.1.0 wrote under `task` beside the name, and under `preprocessing` beside the sizes.
FORMAT_1 = {
    "coarse": (PAIR_SETTINGS_IN_FORMAT_1 | {"mlm": 1.0, "mlm_pairs": 32}, {}),
    "retrieval": (PAIR_SETTINGS_IN_FORMAT_1, {}),
    "vqa": ({}, {}),
    "nlvr2": ({}, {}),
    "caption": (CAPTION_SETTINGS_IN_FORMAT_1, {}),
    **dict.fromkeys(("fine", "detection", "grounding", "refexp"), (DETECTOR_SETTINGS_IN_FORMAT_1, SIZES_IN_FORMAT_1)),
}
#: What these are now, where they are called otherwise.
PRESENT = {
    "gold_published": "gold_as_published",
    "published_search": "search_as_published",
    "published_names": "names_as_published",
}
DERIVED = ("max_length", "cls_id", "sep_id", "pad_id", "mask_id")


@pytest.mark.parametrize("name", FORMAT_1)
def test_format_1_of_every_task_is_read(tmp_path, name):
    settings, sizes = FORMAT_1[name]
    content = format_1(name, settings, **sizes)
    content["labels"] = ["yes", "no"] if name == "vqa" else None
    config = read_config(write(tmp_path, content))
    expected = {PRESENT.get(key, key): value for key, value in settings.items() if key not in DERIVED}
    if sizes:
        expected |= {"short_sides": (128,), "longest_side": 160, "names_as_published": False}
    assert config.task == declared(name).settings(name=name, **expected)
    assert config.model == TINY
    assert (config.text_length, config.tokenizer) == (40, "builtin")
    assert config.labels == (("yes", "no") if name == "vqa" else None)
    assert read_config(write(tmp_path, config.to_json())) == config


def test_every_task_of_version_0_1_0_is_known():
    assert FORMAT_1.keys() <= TASKS.keys()


def test_format_1_of_a_caption_task_is_read(tmp_path):
    derived = {"max_length": 40, "cls_id": 0, "sep_id": 2, "pad_id": 1, "mask_id": 4}
    content = format_1("caption", {"beam": 2, "gold_published": True, "published_search": True, **derived})
    task = read_config(write(tmp_path, content)).task
    assert (task.beam, task.gold_as_published, task.search_as_published) == (2, True, True)


def test_format_1_of_a_detector_is_read(tmp_path):
    sizes = {"short_side": 96, "longest_side": 128, "published_names": True}
    content = format_1("detection", {"channels": 32, "blocks": 1}, **sizes)
    task = read_config(write(tmp_path, content)).task
    assert (task.channels, task.short_sides, task.longest_side, task.names_as_published) == (32, (96,), 128, True)


def test_missing_and_damaged_files_are_clear_errors(tmp_path):
    with pytest.raises(UserError, match=r"config\.json cannot be read: No such file"):
        read_config(tmp_path)
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        read_config(write(tmp_path, '{"format": 1, "mo'))
    for content in ({"format": 99}, {}, []):
        with pytest.raises(UserError, match="has format version"):
            read_config(write(tmp_path, content))


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("task", {"name": "juggling"}, "task 'juggling' is unknown"),
        ("task", {"name": "vqa", "beam": 3}, "task 'vqa' has no setting beam"),
        ("model", {"colour": 3}, "colour"),
        ("preprocessing", {}, "text_length"),
    ],
)
def test_a_model_of_another_version_is_a_clear_error(tmp_path, section, change, message):
    content = make("vqa").to_json()
    content[section] = content["model"] | change if section == "model" else change
    with pytest.raises(UserError, match=message):
        read_config(write(tmp_path, content))


@pytest.mark.parametrize("version", [1, FORMAT])
@pytest.mark.parametrize(("section", "size"), [("preprocessing", [96, 96]), ("preprocessing", 96), ("model", [64, 96])])
def test_two_image_sizes_are_taken(tmp_path, version, section, size):
    content = make("vqa").to_json() | {"format": version}
    content[section] = content[section] | {"image_size": size}
    with pytest.raises(UserError, match=r"model.image_size .* and preprocessing.image_size .* contradict each other"):
        read_config(write(tmp_path, content))
