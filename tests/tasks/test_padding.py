"""Of every task losses and predictions are the same whether texts are padded to the longest of their batch or to the
longest that there may be."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from fiber_cli.checkpoints.loading import new_task
from fiber_cli.data import padding
from fiber_cli.data.sources import open_source
from fiber_cli.model.config import TINY
from fiber_cli.tasks import TASKS, declared
from fiber_cli.tasks.context import TaskContext
from fiber_cli.tasks.evaluation_options import EvaluationOptions
from fiber_cli.tasks.prediction import PredictOptions
from fiber_cli.tasks.training_data import ReadingOptions

#: Longer than the texts of the scenes, and no multiple of 8.
LENGTH = 60
REGIONS = {"channels": 32, "blocks": 1, "drop_block": 0.0, "short_sides": (64,), "longest_side": 64, "negatives": 4}
CONFIGS = {
    "as shipped": TINY,
    "on top": replace(TINY, fusion="top", fusion_layers=2),
    "merged": replace(TINY, fusion_attention="merged"),
    "not fused": replace(TINY, fusion_layers=0),
}
#: Name → the task, its settings and its sizes.
CASES = {name: (name, {}, "as shipped") for name in TASKS}
CASES |= {
    "ITM with random negatives": ("retrieval", {"itc": 0.0, "itm_negatives": "random"}, "as shipped"),
    "fusion on top": ("coarse", {}, "on top"),
    "merged attention": ("coarse", {}, "merged"),
    "no fusion": ("coarse", {}, "not fused"),
    "GOLD": ("caption", {"objective": "gold"}, "as shipped"),
    "GOLD as published": ("caption", {"objective": "gold", "gold_as_published": True}, "as shipped"),
    "CIDEr": ("caption", {"objective": "cider"}, "as shipped"),
    "fused captioner": ("caption", {"form": "fused"}, "as shipped"),
    "captions on top": ("caption", {}, "on top"),
    "published target": ("detection", {"unmatched_target": "last_token"}, "as shipped"),
    "RetinaNet": ("detection", {"head": "retinanet", "blocks": 6}, "as shipped"),
    "Faster R-CNN": ("detection", {"head": "faster_rcnn", "blocks": 6, "sampled_regions": 32}, "as shipped"),
    "deep fusion in the head": ("detection", {"head_fusion": "deep"}, "not fused"),
}


@contextmanager
def padded_to_the_longest_possible():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(padding, "MULTIPLE", LENGTH)
        yield


def prepared(case, tokenizer, length=LENGTH):
    """The task with open gates, and what it is trained on."""
    name, changes, config = CASES[case]
    declaration = declared(name)
    fields = declaration.settings.__dataclass_fields__
    small = {setting: value for setting, value in REGIONS.items() if setting in fields}
    context = TaskContext(declaration.settings(name=name, **(small | changes)), CONFIGS[config], tokenizer, length)
    sources = [open_source(settings) for settings in declaration.scene_settings("train", 4)]
    data = declaration.training_data.load()(sources, context, ReadingOptions("none", "random"))
    context = replace(context, labels=data.labels)
    torch.manual_seed(0)
    task = new_task(context)
    with torch.no_grad():
        for name, parameter in task.named_parameters():
            if name.endswith(".alpha"):
                parameter.fill_(0.5)
    return task, context, sources, data


def losses(case, task, data):
    samples = []
    for source in data.sources:
        for number in range(3):
            samples.append(data.reader(source, number, np.random.default_rng(number)) | {"bad": []})
    batch = data.collate(samples) | {"seed": 0, "step": 0}
    torch.manual_seed(0)
    task.train()
    task.reward = lambda drawn, references: np.linspace(0, 1, len(drawn))
    values = task(batch)
    task.zero_grad()
    values["loss"].backward()
    gradients = {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}
    if case != "Faster R-CNN":  # whose first stage has losses in training alone
        values |= {f"evaluation {name}": value for name, value in task.eval()(batch).items()}
    return values, gradients, batch["ids"].shape[1]


@pytest.mark.parametrize("case", CASES)
def test_a_loss_or_a_gradient_depends_on_padding(case, tokenizer):
    task, _, _, data = prepared(case, tokenizer)
    values, gradients, width = losses(case, task, data)
    with padded_to_the_longest_possible():
        of_whole, gradients_of_whole, whole_width = losses(case, task, data)
    assert width < whole_width
    assert whole_width >= LENGTH
    for name, value in of_whole.items():
        torch.testing.assert_close(
            values[name], value, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert gradients.keys() == gradients_of_whole.keys()
    for name, gradient in gradients_of_whole.items():
        torch.testing.assert_close(
            gradients[name], gradient, atol=1e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
        )


def predictions(task, context, sources):
    """Of all that the task predicts by itself when it is evaluated."""
    from fiber_cli.tasks import prediction

    rows = []
    original = prediction._predict_share

    def kept(*arguments):
        share = original(*arguments)
        rows.append(share.rows)
        return share

    options = EvaluationOptions(mode=None)
    evaluation = declared(context.settings.name).evaluation.load()(sources, context, options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prediction, "_predict_share", kept)
        result = evaluation.measure(task, PredictOptions(4, 0))
    return rows, result.metrics


#: What is predicted from a text; captions are of pictures alone.
WITH_TEXTS = [case for case, (name, _, _) in CASES.items() if name != "caption"]


@pytest.mark.parametrize("case", WITH_TEXTS)
def test_a_prediction_depends_on_padding(case, tokenizer):
    task, context, sources, _ = prepared(case, tokenizer)
    task.eval()
    rows, metrics = predictions(task, context, sources)
    with padded_to_the_longest_possible():
        of_whole, metrics_of_whole = predictions(task, context, sources)
    assert metrics == pytest.approx(metrics_of_whole, abs=1e-3)
    assert len(rows) == len(of_whole)
    for of_set, of_whole_set in zip(rows, of_whole, strict=True):
        assert of_set.keys() == of_whole_set.keys()
        for number, row in of_set.items():
            np.testing.assert_allclose(row, of_whole_set[number], atol=1e-3, rtol=1e-5)


def test_a_published_target_is_felt_where_no_text_fills_the_model(tokenizer):
    """A text of 16 tokens fills a batch, whose last column is not the last one that there may be."""
    task, _, _, data = prepared("published target", tokenizer)
    plain, _, _, _ = prepared("detection", tokenizer)
    plain.load_state_dict(task.state_dict())
    sample = data.reader(data.sources[0], 0, np.random.default_rng(0)) | {"bad": []}
    sample["mask"][:16] = True
    batch = data.collate([sample])
    assert batch["mask"].shape == (1, 16)
    assert batch["mask"].all()
    assert task.eval()(batch)["loss"] == plain.eval()(batch)["loss"]
    sample["mask"][:] = True
    whole = data.collate([sample])
    assert whole["mask"].shape == (1, LENGTH)
    assert task(whole)["loss"] > plain(whole)["loss"]
