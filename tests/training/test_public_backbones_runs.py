"""Runs that start from public weights of random values in timm's and transformers' own form: naming them is all."""

import dataclasses
import json
import shutil

import pytest
from public_backbones import public_roberta_config, public_swin
from safetensors.torch import load_file
from small_encoder import SMALL
from timm.models import save_for_hf
from transformers import RobertaModel

from fiber_cli.config.resolve import parse_recipe
from fiber_cli.data.text import BUILTIN
from fiber_cli.training.estimate import estimate
from fiber_cli.training.fit import fit

BOXES = "channels: 32, blocks: 1, drop_block: 0, short_sides: [64], longest_side: 96"
#: Task → its section and its scenes.
TASKS = {
    "detection": (f"{{name: detection, {BOXES}}}", "scene_detection"),
    "refexp": (f"{{name: refexp, {BOXES}}}", "scene_referring"),
    "vqa": ("{name: vqa}", "scenes"),
    "caption": ("{name: caption}", "scenes"),
    "retrieval": ("{name: retrieval}", "scenes"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A Swin, and a RoBERTa with its tokenizer, as they are published."""
    folder = tmp_path_factory.mktemp("public")
    image = SMALL.image
    sizes = {"embed_dim": image.embed_dim, "depths": image.depths, "num_heads": image.heads, "window_size": 2}
    swin = public_swin(image, classes=5)
    save_for_hf(swin, str(folder / "swin"), model_args=sizes | {"img_size": 64}, safe_serialization=True)
    text = dataclasses.replace(SMALL.text, vocab=2000, positions=200)
    RobertaModel(public_roberta_config(text), add_pooling_layer=False).save_pretrained(folder / "roberta")
    for file in BUILTIN.iterdir():
        shutil.copy(file, folder / "roberta")
    return folder


def recipe_of(name: str, folders, *overrides: str):
    task, scenes = TASKS[name]
    text = f"""
model: {{preset: small, text_length: 60, swin: {folders}/swin, roberta: {folders}/roberta}}
task: {task}
data: {{train: [{{kind: {scenes}, count: 8}}], workers: 0}}
optim: {{lr: 1e-3, schedule: constant, warmup: 0, steps: 2}}
runtime: {{micro_batch: 2, global_batch: 4}}
"""
    return parse_recipe(text, "test", overrides, name=name)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_trains_from_public_weights_that_are_named_alone(name, folders, tmp_path):
    recipe = recipe_of(name, folders)
    assert recipe.model.tokenizer == recipe.model.roberta
    assert fit(recipe, tmp_path / name) == 0
    checkpoint = tmp_path / name / "checkpoints/step-000002"
    model = json.loads((checkpoint / "config.json").read_text())["model"]
    assert (model["image"]["embed_dim"], model["text"]["layers"], model["fusion_layers"]) == (8, 6, 3)
    assert model["image_size"] == [64, 64]
    summary = json.loads((tmp_path / name / "summary.json").read_text())
    assert estimate(recipe).parameters == summary["parameters"]
    # Two steps change a weight by two rates at most.
    words = load_file(folders / "roberta/model.safetensors")["embeddings.word_embeddings.weight"]
    trained = load_file(checkpoint / "model.safetensors")["encoder.text.embeddings.word.weight"]
    assert (trained - words).abs().max() < 0.01


def test_a_run_goes_on_when_the_public_weights_are_gone(folders, tmp_path):
    copies = tmp_path / "public"
    shutil.copytree(folders, copies)
    assert fit(recipe_of("vqa", copies), tmp_path / "run") == 0
    shutil.rmtree(copies / "swin")
    assert fit(recipe_of("vqa", copies, "optim.steps=3"), tmp_path / "run", resume=True) == 0
    assert (tmp_path / "run/checkpoints/step-000003/model.safetensors").is_file()
