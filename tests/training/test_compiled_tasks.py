"""A training step of every task computes the same with compiled blocks, whose graphs are whole."""

import copy

import pytest
import torch
from torch._dynamo.utils import counters

from fiber_cli.config.resolve import parse_recipe
from fiber_cli.model.compiling import compile_blocks
from fiber_cli.tasks import TASKS, declared
from fiber_cli.training.work import work

# Without chance, of which compiled graphs draw other.
MODEL = """
model: {preset: tiny, image_size: 64, text_length: 30, drop_path: 0, depths: [1, 1, 1], text_layers: 2,
        fusion_layers: 1}
optim: {lr: 1e-3, steps: 2}
runtime: {micro_batch: 4, global_batch: 4}
"""
#: Task → its settings and the kind of its scenes; one of those that are trained by the same module.
RECIPES = {
    "coarse": ("", "scenes"),
    "retrieval": ("itc: 1, itm: 1", "scenes"),
    "vqa": ("", "scenes"),
    "vqa_generated": ("", "scenes"),
    "nlvr2": ("", "scenes"),
    "caption": ("", "scenes"),
    "refexp": ("channels: 32, blocks: 1, drop_block: 0, short_sides: [64], longest_side: 96", "scene_referring"),
}


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def test_a_task_is_not_tried_compiled():
    assert {declared(name).module.load() for name in RECIPES} == {declared(name).module.load() for name in TASKS}


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_compiled_blocks_train_otherwise(name, fresh_compiler):
    settings, kind = RECIPES[name]
    text = f"{MODEL}task: {{name: {name}, {settings}}}\ndata: {{train: [{{kind: {kind}, count: 8}}], workers: 0}}\n"
    torch.manual_seed(0)
    planned = work(parse_recipe(text, "test"))
    batch = next(planned.batches(0)) | {"seed": 0, "step": 0}
    plain = planned.task.train()
    compiled = copy.deepcopy(plain)
    compile_blocks(compiled, any_size=declared(name).free_image_size, backend="aot_eager")
    outcomes = []
    for task in (plain, compiled):
        torch.manual_seed(1)
        loss = task(copy.deepcopy(batch))["loss"]
        loss.backward()
        gradients = {of: each.grad for of, each in task.named_parameters() if each.grad is not None}
        outcomes.append((loss.detach(), gradients))
    torch.testing.assert_close(outcomes[1], outcomes[0], atol=2e-5, rtol=1e-3)
    assert counters["stats"]["unique_graphs"] > 0
    assert not counters["graph_break"]
