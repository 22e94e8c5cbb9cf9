"""Published names and ours, both ways, on the published base models' lists of keys."""

import json
import math

import pytest
import torch

from fiber_cli.checkpoints import published as convert
from fiber_cli.errors import UserError
from fiber_cli.checkpoints.loading import load
from fiber_cli.model.config import BASE, FiberConfig, ImageConfig, TextConfig
from fiber_cli.training.optim import param_groups
from fiber_cli.tasks import TASKS
from fiber_cli.tasks.coarse.task import CoarseTask

#: Entry of the published key list → what it was trained for, the labels of its classifier, and its parameters in all
#: (None where the published total is not known).
ENTRIES = {
    "pretrain_384": ("coarse", None, 281_897_191),
    "vqa_576": ("vqa", 3129, 250_081_539),
    "nlvr2_384": ("nlvr2", None, 247_372_940),
    "caption_576": ("caption", None, 287_402_275),
    "irtr_itm_384": ("retrieval-itm", None, None),
    "irtr_itc_576": ("retrieval-itc", None, None),
}


def make(task: str, config: FiberConfig, labels: int | None = None):
    name, settings, _ = convert.CONVERTED[task]
    return TASKS[name](config, **settings, **({"labels": labels} if labels else {}))


@pytest.fixture(scope="module")
def keys(shared):
    return json.loads((shared / "golden" / "coarse_base_keys.json").read_text())


@pytest.fixture(scope="module")
def published(keys):
    return keys["pretrain_384"]


@pytest.fixture(scope="module")
def ours():
    with torch.device("meta"):
        return dict(CoarseTask(BASE).named_parameters())


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_published_key_has_its_place_and_every_weight_goes_back(keys, entry):
    task, labels, total = ENTRIES[entry]
    config = BASE.at_image_size((int(entry[-3:]),) * 2)
    with torch.device("meta"):
        ours = dict(make(task, config, labels).named_parameters())
    state = {key: torch.empty(shape, device="meta") for key, shape in keys[entry].items()}
    weights = convert.from_official(state, config, ours)
    assert {name: tuple(t.shape) for name, t in weights.items()} == {n: tuple(p.shape) for n, p in ours.items()}
    back = {key: list(t.shape) for key, t in convert.to_official(ours, config).items()}
    assert back == {key: shape for key, shape in keys[entry].items() if key not in convert.QUEUE}
    if total is not None:
        unused = convert.unused_shapes(config, ours).values()
        assert sum(p.numel() for p in ours.values()) + sum(math.prod(shape) for shape in unused) == total


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


@pytest.mark.parametrize("task", ["pretrain", "vqa", "nlvr2", "caption_mle"])
def test_published_parameter_groups(shared, task):
    """With `published` rules every parameter has the learning rate and decay of the published optimiser."""
    groups = json.loads((shared / "golden" / "coarse_param_groups.json").read_text())[task]
    name = {"pretrain": "coarse", "caption_mle": "caption"}.get(task, task)
    with torch.device("meta"):
        model = make(name, BASE, 3129 if task == "vqa" else None)
    ours = dict(model.named_parameters())
    names = {id(parameter): name for name, parameter in ours.items()}
    expected = {}
    for group in groups:
        for key in group["names"]:
            if (name := convert.rename(key, convert.COARSE)) in ours:
                expected[name] = (group["lr_over_base"], group["weight_decay"])
    mults = {"cross_modal_mult": 5.0, "head_mult": 5.0}
    published, right = (
        {
            names[id(parameter)]: (group["mult"], group["weight_decay"])
            for group in param_groups(ours.items(), weight_decay=0.01, published=rules, **mults)
            for parameter in group["params"]
        }
        for rules in ("coarse", "none")
    )
    assert published == expected and published.keys() == ours.keys()
    changed = {name for name, (_, decay) in right.items() if decay != expected[name][1]}
    classifier_norm = {f"{task}.norm.weight"} & ours.keys()
    assert changed == classifier_norm | {
        n for n in ours if n.endswith(".alpha") or n == "temperature" or n.endswith("cross.norm.weight")
    }


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
    restored, _, config, _ = load(folder)
    assert config["preprocessing"]["image_size"] == [64, 64]
    for name, weight in task.state_dict().items():
        torch.testing.assert_close(restored.state_dict()[name], weight, atol=0, rtol=0)
