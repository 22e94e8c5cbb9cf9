"""From a recipe to what a run works on."""

import dataclasses
import json
import shutil
from functools import partial

import pytest
import torch
from region_files import coco_box, coco_file, mdetr_file
from small_runs import RECIPE, TASKS, VAL
from statement_files import write_statements
from vqa_files import PATTERN, VOCABULARY, write_vqa_files

from fiber_cli.checkpoints import directory, loading
from fiber_cli.checkpoints.loading import load
from fiber_cli.checkpoints.weights import load_weights, named_weights
from fiber_cli.config.resolve import parse_recipe, resolve_recipe
from fiber_cli.errors import DeclarationError, UserError
from fiber_cli.model.config import BASE
from fiber_cli.tasks import declarations, declared
from fiber_cli.tasks.abilities import Embedding
from fiber_cli.tasks.caption import metrics as caption_metrics
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.declaration import ParameterKinds
from fiber_cli.tasks.vqa.vocabulary import write_vocabulary
from fiber_cli.training import work as training_work
from fiber_cli.training.work import count_parameters, open_sources, work


def small(*overrides: str, task: str = "{name: coarse}"):
    return parse_recipe(RECIPE.replace("{name: coarse}", task), "test", overrides)


def test_parts_of_the_base_model_have_the_published_sizes():
    with torch.device("meta"):
        counts = count_parameters(CoarseTask(BASE))
    assert counts["fusion (image side)"] == 12_607_494
    # The published code has, and never uses, 6 LayerNorms and 6 gates more.
    assert counts["fusion (text side)"] == 13_397_004 - 6 * (2 * 768 + 1)
    assert counts["total"] == sum(v for k, v in counts.items() if k != "total")


def test_recipe_sizes_reach_the_model():
    made = work(small())
    config = made.task.encoder.config
    assert (config.image.depths, config.image.heads, config.text.layers) == ((1, 2), (2, 4), 2)
    assert (config.image_size, config.fusion_layers) == ((64, 64), 1)
    assert config.text.vocab == len(made.tokenizer)
    assert (made.steps, made.steps_per_epoch) == (4, 2)
    batch = next(iter(made.batches(0)))
    assert batch["pixels"].shape == (8, 3, 64, 64)
    assert batch["ids"].shape == (8, 30)


def test_epochs_become_steps():
    assert work(small("optim.steps=null", "optim.epochs=3")).steps == 6


def test_batches_go_on_from_a_step():
    made = work(small("optim.steps=4"))
    whole = [batch["sample_ids"] for batch in made.batches(0)]
    assert len(whole) == 4
    assert [batch["sample_ids"] for batch in made.batches(2)] == whole[2:]


def test_without_validation_no_data_are_opened_for_it():
    assert work(small()).validate is None
    missing = "data.val=[{kind: karpathy, json: /absent.json, images: /absent}]"
    assert work(small(missing)).validate is None


def test_a_checkpoint_gives_back_the_task(saved):
    loaded = load(saved)
    original = load_weights(directory.resolve(saved))
    content = json.loads((loaded.path / "config.json").read_text())
    assert not loaded.task.training
    assert content["preprocessing"] == {"image_size": [64, 64], "text_length": 30}
    assert loaded.task.state_dict().keys() == original.keys()
    assert all(torch.equal(value, original[name]) for name, value in loaded.task.state_dict().items())


def test_weights_of_a_run_that_goes_on_are_not_read(saved, tmp_path):
    recipe = small(f"model.swin={tmp_path / 'absent'}")
    without_weights = tmp_path / "step-000003"
    without_weights.mkdir()
    shutil.copy(directory.resolve(saved) / "config.json", without_weights)
    assert work(recipe, init_from=without_weights, fresh=False).steps == 4


def test_the_same_seed_gives_the_same_weights():
    first, second, other = (work(small(f"runtime.seed={seed}")).task for seed in (1, 1, 2))
    assert torch.equal(first.mlm.dense.weight, second.mlm.dense.weight)
    assert not torch.equal(first.mlm.dense.weight, other.mlm.dense.weight)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_starts_from_coarse_weights_trains_and_validates(saved, name, capsys, monkeypatch):
    """Forward and backward of a batch, and the metrics that the recipe's keep_best may name."""
    # METEOR's program takes ten seconds to start.
    monkeypatch.setattr(caption_metrics, "_meteors", lambda groups: [0.5] * len(groups))
    declaration = declared(name)
    recipe = small("log.validate_every=2", VAL, task=TASKS[name][0])
    made = work(recipe, init_from=saved)
    old, new = load_weights(directory.resolve(saved)), named_weights(made.task)
    told = capsys.readouterr().err.splitlines()
    fresh, dropped = (set(told[n].partition(": ")[2].split(", ")) - {"none"} for n in (-2, -1))
    assert fresh == new.keys() - old.keys()
    assert dropped == old.keys() - new.keys()
    assert all(torch.equal(new[key], old[key]) for key in new.keys() & old.keys())
    losses = made.task.train()(next(iter(made.batches(0))) | {"seed": 1, "step": 0})
    losses["loss"].backward()
    with_gradient = {key for key, p in made.task.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    # Of captioners this size nothing is fresh.
    learns_fresh = any(key.startswith(declaration.init_from.fresh) for key in with_gradient)
    assert learns_fresh or name in ("caption", "vqa_generated")
    assert made.parameters is declaration.parameters
    metrics = made.validate(made.task)
    assert set(declaration.metrics(recipe.task)) & metrics.keys()
    assert all(0 <= value <= 1000 for value in metrics.values())


def test_what_is_not_trained_on_is_told(vqa_folder, capsys):
    write_vocabulary(vqa_folder / "answers.json", VOCABULARY)
    source = f"kind: vqa, questions: {vqa_folder}/val_questions.json, annotations: {vqa_folder}/annotations.json"
    source += f", images: {vqa_folder}/images, pattern: 'COCO_val2014_{{image_id:012d}}.jpg'"
    made = work(
        small(
            f"data.train=[{{{source}}}]",
            "runtime={micro_batch: 1, global_batch: 1}",
            task=f"{{name: vqa, answers: {vqa_folder}/answers.json}}",
        )
    )
    expected = "1 questions without an answer in the vocabulary are not trained on"
    assert expected in capsys.readouterr().err
    assert made.config["labels"] == VOCABULARY
    assert made.task.vqa.fc2.out_features == len(VOCABULARY)
    assert made.steps_per_epoch == 3


def test_sources_have_the_recipes_limit_of_pixels():
    recipe = small("data.max_pixels=5000")
    (source,) = open_sources(recipe.data.train, recipe.data)
    assert source.max_pixels == 5000


SIZES = "channels: 32, blocks: 1, drop_block: 0, short_sides: [64], longest_side: 96"
#: Task → its section and the kind of scenes that it reads.
SECTIONS = {
    "coarse": ("{name: coarse}", "scenes"),
    **{name: (section, "scenes") for name, (section, _) in TASKS.items()},
    "fine": (f"{{name: fine, {SIZES}}}", "scene_detection"),
    "detection": (f"{{name: detection, {SIZES}}}", "scene_detection"),
    "grounding": (f"{{name: grounding, {SIZES}}}", "scene_grounding"),
    "refexp": (f"{{name: refexp, {SIZES}}}", "scene_referring"),
}
#: The detector needs strides up to 32.
VALIDATED = (
    "log.validate_every=2",
    "model.text_length=60",
    "model.depths=[1, 1, 1]",
    "model.image_heads=[2, 2, 2]",
)


def begin(task, *overrides, kind=None):
    section, scenes = SECTIONS[task]
    text = RECIPE.replace("{name: coarse}", section).replace("kind: scenes", f"kind: {kind or scenes}")
    return work(parse_recipe(text, "test", [*VALIDATED, *overrides]))


def validated_on(task, kind):
    return VAL.replace("kind: scenes", f"kind: {kind}")


def test_a_task_is_not_tried_here():
    assert SECTIONS.keys() == {declaration.name for declaration in declarations()}


@pytest.mark.parametrize("task", SECTIONS)
def test_no_predictions_cannot_be_scored(task):
    assert begin(task, validated_on(task, SECTIONS[task][1])).validate is not None


@pytest.mark.parametrize(
    ("task", "evalset"),
    [
        ("vqa", "fiber_cli.tasks.vqa.evaluation.VqaSet"),
        ("vqa_generated", "fiber_cli.tasks.vqa.evaluation.VqaSet"),
        ("nlvr2", "fiber_cli.tasks.nlvr2.evaluation.StatementSet"),
        ("caption", "fiber_cli.tasks.caption.evaluation.CaptionSet"),
        ("detection", "fiber_cli.tasks.regions.detection_set.DetectionSet"),
        ("grounding", "fiber_cli.tasks.regions.phrase_set.PhraseSet"),
        ("refexp", "fiber_cli.tasks.regions.referring_set.ReferringSet"),
    ],
)
def test_a_truth_that_cannot_be_scored_is_known_at_the_first_validation(task, evalset, monkeypatch):
    def score(self, predictions):
        raise UserError("this truth has no score")

    monkeypatch.setattr(f"{evalset}.score", score)
    with pytest.raises(UserError, match="this truth has no score"):
        begin(task, validated_on(task, SECTIONS[task][1]))


def own_data(tmp_path, **change):
    boxes = [coco_box(7, 3, [1, 2, 20, 15], area=None), coco_box(5, 9, [5, 5, 0, 8], iscrowd=None)]
    path = coco_file(tmp_path, boxes)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    return f"data.val=[{{kind: coco, json: {path}, images: {tmp_path}}}]"


def test_what_a_reader_makes_of_a_file_ends_the_run(tmp_path, capsys):
    begin("detection", own_data(tmp_path))
    said = capsys.readouterr().err
    assert "data.val: 1 boxes of instances without an area inside their image are not scored" in said


def test_a_validation_without_objects_is_not_told(tmp_path, capsys):
    begin("detection", own_data(tmp_path, annotations=[]))
    assert "data.val: no object in the truth of instances: predicted only" in capsys.readouterr().err


LVIS_CATEGORIES = [{"id": 3, "name": "cat", "frequency": "c"}, {"id": 9, "name": "light", "frequency": "f"}]
CROWD = [coco_box(7, 3, [1, 2, 20, 15], iscrowd=1)]
UNSCORED = "cannot give {}: nothing in data.val has a truth to be scored by; name sources with annotations"


def lvis_data(tmp_path):
    file = tmp_path / "instances.json"
    own_data(tmp_path, categories=LVIS_CATEGORIES)
    content = json.loads(file.read_text())
    for image in content["images"]:
        image.update(neg_category_ids=[], not_exhaustive_category_ids=[])
    file.write_text(json.dumps(content))
    return f"data.val=[{{kind: coco, json: {file}, images: {tmp_path}}}]"


def statements_data(tmp_path, label):
    files = {f"dev-1-0-img{side}.png": 50 for side in range(2)}
    file, images = write_statements(tmp_path, files, [{"sentence": "t", "identifier": "dev-1-0-0", "label": label}])
    return f"data.val=[{{kind: statements, jsonl: {file}, images: {images}}}]"


def captions_data(tmp_path, *sentences):
    own_data(tmp_path)
    images = [{"filename": "a.png", "split": "val", "sentences": [{"raw": text} for text in sentences]}]
    (tmp_path / "dataset.json").write_text(json.dumps({"images": images}))
    return f"data.val=[{{kind: karpathy, json: {tmp_path}/dataset.json, images: {tmp_path}, split: val}}]"


def questions_data(folder, annotations):
    write_vqa_files(folder)
    source = f"kind: vqa, questions: {folder}/val_questions.json, images: {folder}/images, pattern: '{PATTERN}'"
    return f"data.val=[{{{source}, annotations: {(annotations and folder / annotations) or 'null'}}}]"


@pytest.mark.parametrize(
    ("task", "val", "metric", "said"),
    [
        ("detection", lvis_data, "detection/ap50", "cannot give detection/ap50; data.val gives lvis/fixed_ap, "),
        ("detection", lvis_data, "lvis/fixed_ap", None),
        ("detection", own_data, "detection/ap50", None),
        ("detection", own_data, "lvis/fixed_ap", "cannot give lvis/fixed_ap; data.val gives detection/ap, "),
        ("detection", partial(own_data, annotations=None), "detection/ap50", UNSCORED),
        ("detection", partial(own_data, annotations=[]), "detection/ap", UNSCORED),
        ("detection", partial(own_data, annotations=CROWD), "detection/ap50", UNSCORED),
        ("nlvr2", partial(statements_data, label=None), "nlvr2/accuracy", UNSCORED),
        ("nlvr2", partial(statements_data, label="True"), "nlvr2/accuracy", None),
        ("caption", captions_data, "caption/cider", UNSCORED),
        ("caption", lambda tmp_path: captions_data(tmp_path, "a cat"), "caption/cider", None),
        ("vqa", partial(questions_data, annotations=None), "vqa/accuracy", UNSCORED),
        ("vqa", partial(questions_data, annotations="annotations.json"), "vqa/accuracy", None),
    ],
)
def test_a_best_that_the_validation_cannot_give_is_refused_before_the_first_step(tmp_path, task, val, metric, said):
    overrides = val(tmp_path), f"log.keep_best={metric}"
    if said is None:
        assert begin(task, *overrides).validate is not None
        return
    with pytest.raises(UserError, match=f"^log.keep_best: the validation {said.format(metric)}"):
        begin(task, *overrides)


def test_pictures_that_cannot_be_read_are_known_at_the_first_validation(tmp_path):
    override = own_data(tmp_path)
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"no item could be read, such as instances/.*\.png: not a readable image"):
        begin("detection", override)


@pytest.mark.parametrize("task", ["coarse", "retrieval"])
def test_pictures_without_captions_are_known_at_the_first_validation(tmp_path, task):
    own_data(tmp_path)
    images = [{"filename": name, "split": "val", "sentences": []} for name in ("a.png", "b.png")]
    (tmp_path / "dataset.json").write_text(json.dumps({"images": images}))
    val = f"data.val=[{{kind: karpathy, json: {tmp_path}/dataset.json, images: {tmp_path}, split: val}}]"
    with pytest.raises(UserError, match=r"no image with a text could be read, such as .*a.png: no caption"):
        begin(task, val)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"annotations": None}, "no annotations: it can only be predicted"), ({"annotations": []}, "no box to train on")],
)
def test_a_file_without_boxes_is_trained_on(tmp_path, change, said):
    train = own_data(tmp_path, **change).replace("data.val", "data.train")
    with pytest.raises(UserError, match=rf"data.train: instances has {said}"):
        begin("detection", train, validated_on("detection", "scene_detection"))


def grounding_data(tmp_path, *spans):
    path = mdetr_file(tmp_path, spans)
    return f"data.train=[{{kind: mdetr, json: {path}, images: {tmp_path}/images}}]"


def odvg_grounding(tmp_path, *spans):
    own_data(tmp_path)
    regions = [{"bbox": [1, 2, 11, 7], "tokens_positive": each} for each in spans]
    record = {"filename": "a.png", "height": 30, "width": 40}
    record["grounding"] = {"caption": "a cat left of a dog", "regions": regions}
    (tmp_path / "x.jsonl").write_text(json.dumps(record))
    return f"data.train=[{{kind: odvg, jsonl: {tmp_path}/x.jsonl, images: {tmp_path}}}]"


@pytest.mark.parametrize(("data", "name"), [(grounding_data, "mixed"), (odvg_grounding, "x")])
def test_boxes_without_words_are_counted_or_refused_before_the_first_step(tmp_path, capsys, data, name):
    alone = "runtime={micro_batch: 1, global_batch: 1}", validated_on("grounding", "scene_grounding")
    with pytest.raises(UserError, match=f"data.train: {name}: none of its 3 boxes has words of its caption, .*spans"):
        begin("grounding", data(tmp_path, [], [], []), *alone)
    begin("grounding", data(tmp_path, [], [[2, 5]], []), *alone)
    assert f"2 of 3 boxes of {name} have no words of their caption: trained on as" in capsys.readouterr().err
    begin("grounding", data(tmp_path, [[2, 5]], [[2, 5]]), *alone)
    assert "no words" not in capsys.readouterr().err


QUICK = ["data.workers=0", "data.train.0.count=20", "data.val.0.count=2", "optim.steps=2", "optim.warmup=0"]


def test_what_a_validation_has_to_say_of_its_numbers_is_shown_once(capsys):
    recipe = resolve_recipe("tiny_retrieval", [*QUICK, "runtime.micro_batch=2", "runtime.global_batch=2"])
    planned = work(recipe)
    planned.task.eval()
    for expected in (1, 0):
        assert planned.validate(planned.task)["itc/ir@10"] == 100
        told = capsys.readouterr().err
        assert told.count("ir@5, ir@10 of whole rankings cannot be missed") == expected


def test_a_reward_over_images_says_that_published_goes_over_pairs(tmp_path, capsys):
    table = tmp_path / "df.json"
    table.write_text('{"ref_len": 9, "document_frequency": {}}')
    reward = ["task.objective=cider", f"task.cider_df={table}", "runtime.micro_batch=2", "runtime.global_batch=2"]
    steps = {}
    for captions in ("random", "each"):
        planned = work(resolve_recipe("tiny_caption", [*QUICK, *reward, f"data.captions={captions}"]))
        steps[captions] = planned.steps_per_epoch
        assert ("data.captions=each" in capsys.readouterr().err) == (captions == "random")
    assert steps["random"] == 10
    assert steps["each"] > 30


def test_a_declaration_that_is_not_true_of_its_module_begins_a_run(monkeypatch):
    for changes, message in (
        ({"parameters": ParameterKinds((), ("pool.",), ())}, "task 'vqa': the parameter 'vqa.* is outside the encoder"),
        ({"abilities": (Embedding,)}, "task 'vqa': abilities: .*VqaTask is not derived from Embedding"),
        ({"scenes": ({"kind": "scene_detection"},)}, "task 'vqa': scenes: .* has no questions"),
    ):
        wrong = dataclasses.replace(declared("vqa"), **changes)
        for module in (loading, training_work):
            monkeypatch.setattr(module, "declared", lambda name, wrong=wrong: wrong)
        with pytest.raises(DeclarationError, match=message):
            work(small(task="{name: vqa}"))
