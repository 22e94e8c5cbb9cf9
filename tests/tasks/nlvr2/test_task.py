"""The NLVR2 task: two fused passes side by side, against the same by hand."""

from collections import defaultdict

import pytest
import torch
import torch.nn.functional as F
from small_classifiers import CONFIG, pair_batch, shaken

from fiber_cli.model.pixels import normalize
from fiber_cli.tasks.nlvr2.task import Nlvr2Task


@pytest.fixture
def task():
    return shaken(Nlvr2Task(CONFIG)).eval()


@pytest.fixture
def batch():
    return pair_batch(images=2, labels=torch.tensor([1, 0, 1]))


def test_two_fused_passes_side_by_side(task, batch):
    """Each image apart with its statement; text and image of the left, then of the right, go into the classifier."""
    for row in range(3):
        pooled = []
        for side in (0, 1):
            image = task.encoder.image_stem(normalize(batch["pixels"][row, side][None]))
            text = task.encoder.text_stem(batch["ids"][row][None], batch["mask"][row][None])
            fused = task.encoder.fuse(image, text)
            pooled += [task.pool.text(fused.text), task.pool.image(fused.pyramid[-1])]
        x = torch.cat(pooled, 1) @ task.nlvr2.fc1.weight.T + task.nlvr2.fc1.bias
        x = F.layer_norm(x, (24,), task.nlvr2.norm.weight, task.nlvr2.norm.bias, eps=1e-5)
        x = x * (1 + torch.erf(x / 2**0.5)) / 2
        expected = x @ task.nlvr2.fc2.weight.T + task.nlvr2.fc2.bias
        torch.testing.assert_close(task.logits(batch)[row][None], expected, atol=1e-5, rtol=1e-4)


def test_one_image_is_the_same_image_twice(task, batch):
    one = batch | {"pixels": batch["pixels"][:, :1]}
    twice = batch | {"pixels": batch["pixels"][:, [0, 0]]}
    torch.testing.assert_close(task.logits(one), task.logits(twice), atol=1e-5, rtol=1e-5)
    assert (task.logits(one) - task.logits(batch)).abs().max() > 1e-3


def test_the_order_of_the_images_matters(task, batch):
    swapped = batch | {"pixels": batch["pixels"].flip(1)}
    assert (task.logits(swapped) - task.logits(batch)).abs().amax(1).min() > 1e-3


@pytest.mark.parametrize("images", [1, 2])
def test_the_text_stem_runs_once_for_both_images(task, batch, images, monkeypatch):
    rows = defaultdict(list)

    def count(name: str, call, rows_of):
        def counted(first, *rest, **settings):
            rows[name].append(len(rows_of(first)))
            return call(first, *rest, **settings)

        monkeypatch.setattr(task.encoder, name, counted)

    count("text_stem", task.encoder.text_stem, lambda ids: ids)
    count("image_stem", task.encoder.image_stem, lambda pixels: pixels)
    count("fuse", task.encoder.fuse, lambda image: image.map)
    task(batch | {"pixels": batch["pixels"][:, :images]})
    assert rows == {"text_stem": [3], "image_stem": [3 * images], "fuse": [3 * images]}


def test_loss_by_hand(task, batch):
    logits = task.logits(batch).detach()
    losses = task(batch)
    expected = sum(-logits[i, label] + logits[i].exp().sum().log() for i, label in enumerate((1, 0, 1))) / 3
    torch.testing.assert_close(losses["loss"].detach(), expected)
    assert not losses["nlvr2_loss"].requires_grad
    said = task.predict(batch)
    assert said.dtype == torch.int64
    assert said.tolist() == (logits[:, 1] > logits[:, 0]).long().tolist()
    right = sum(int(a == b) for a, b in zip(said.tolist(), (1, 0, 1), strict=True)) / 3
    assert losses["accuracy"].item() == pytest.approx(right)
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.nlvr2.parameters())
