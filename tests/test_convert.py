"""Published names and ours, both ways, on the published base model's list of keys."""

import json

import pytest
import torch

from fiber_cli import convert
from fiber_cli.build import load_task
from fiber_cli.errors import UserError
from fiber_cli.model.config import BASE, FiberConfig, ImageConfig, TextConfig
from fiber_cli.optim import param_groups
from fiber_cli.tasks.coarse import CoarseTask


@pytest.fixture(scope="module")
def published(shared):
    return json.loads((shared / "golden" / "coarse_base_keys.json").read_text())["pretrain_384"]


@pytest.fixture(scope="module")
def ours():
    with torch.device("meta"):
        return dict(CoarseTask(BASE).named_parameters())


def test_every_published_key_has_its_place(published, ours):
    state = {key: torch.empty(shape, device="meta") for key, shape in published.items()}
    weights = convert.from_official(state, BASE, ours)
    assert {name: tuple(t.shape) for name, t in weights.items()} == {n: tuple(p.shape) for n, p in ours.items()}


def test_every_weight_goes_back(published, ours):
    official = convert.to_official(ours, BASE)
    shapes = {key: list(t.shape) for key, t in official.items()}
    assert shapes == {key: shape for key, shape in published.items() if key not in convert.QUEUE}


def test_round_trip_keeps_values():
    weights = {"itm.fc.weight": torch.randn(2, 1536), "itm.fc.bias": torch.randn(2), "temperature": torch.tensor([0.1])}
    official = convert.to_official(weights, BASE)
    torch.testing.assert_close(official["rank_output.weight"], weights["itm.fc.weight"][1:])
    back = convert.from_official(official, BASE, weights)
    assert back.keys() == weights.keys() and all(torch.equal(back[k], weights[k]) for k in weights)


def test_strict_both_ways(published, ours):
    state = {key: torch.empty(shape, device="meta") for key, shape in published.items()}
    del state["itm_score.fc.weight"]
    state["vit_model.head.weight"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"vit_model\.head\.weight.*itm\.fc\.weight"):
        convert.from_official(state, BASE, ours)
    with pytest.raises(UserError, match="encoder.new.weight"):
        convert.to_official({"encoder.new.weight": torch.zeros(1)}, BASE)


def test_only_plain_tensors_are_read(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "touched"), "w"))

    torch.save({"state_dict": {"a": torch.ones(1)}, "extra": Payload()}, tmp_path / "unsafe.ckpt")
    with pytest.raises(UserError, match="not readable"):
        convert.read_official(tmp_path / "unsafe.ckpt")
    assert not (tmp_path / "touched").exists()
    torch.save({"state_dict": {"module.a": torch.ones(1)}}, tmp_path / "safe.ckpt")
    assert convert.read_official(tmp_path / "safe.ckpt").keys() == {"a"}
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "safe.ckpt").read_bytes()[:100])
    for name in ("cut.ckpt", "none.ckpt"):
        with pytest.raises(UserError, match=name):
            convert.read_official(tmp_path / name)


def test_published_parameter_groups(shared, ours):
    """With `published_decay` every parameter has the learning rate and decay of the published optimiser."""
    groups = json.loads((shared / "golden" / "coarse_param_groups.json").read_text())["pretrain"]
    expected = {}
    for group in groups:
        for key in group["names"]:
            if (name := convert.rename(key, convert.COARSE)) in ours:
                expected[name] = (group["lr_over_base"], group["weight_decay"])
    actual = {
        name: (group["mult"], group["weight_decay"])
        for group in param_groups(
            ours.items(), weight_decay=0.01, cross_modal_mult=5.0, head_mult=5.0, published_decay=True
        )
        for name in group["names"]
    }
    assert actual == expected
    right = {
        name: group["weight_decay"]
        for group in param_groups(ours.items(), weight_decay=0.01, cross_modal_mult=5.0, head_mult=5.0)
        for name in group["names"]
    }
    changed = {name for name, decay in right.items() if decay != expected[name][1]}
    assert changed == {n for n in ours if n.endswith(".alpha") or n == "temperature" or n.endswith("cross.norm.weight")}


def test_convert_file_says_what_does_not_fit(tmp_path):
    torch.save({"state_dict": {"weight": torch.ones(2)}}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="not a published coarse-stage"):
        convert.convert_file(tmp_path / "other.ckpt", tmp_path / "out", task="coarse", tokenizer="builtin")
    small = FiberConfig(
        image=ImageConfig(embed_dim=8, depths=(2, 2, 18, 2), heads=(1, 2, 4, 8), window=2),
        text=TextConfig(hidden=24, heads=2, intermediate=32, vocab=30, positions=20),
        hidden=16,
        image_size=(64, 64),
    )
    task = CoarseTask(small)
    torch.save({"state_dict": convert.to_official(task.state_dict(), small)}, tmp_path / "small.ckpt")
    with pytest.raises(UserError, match="not of the base model's sizes"):
        convert.convert_file(tmp_path / "small.ckpt", tmp_path / "out", task="coarse", tokenizer="builtin")
    assert not (tmp_path / "out").exists()
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(convert, "BASE", small)
        folder = convert.convert_file(tmp_path / "small.ckpt", tmp_path / "out", task="coarse", tokenizer="builtin")
    restored, _, config = load_task(folder)
    assert config["preprocessing"]["image_size"] == [64, 64]
    for name, weight in task.state_dict().items():
        torch.testing.assert_close(restored.state_dict()[name], weight, atol=0, rtol=0)
