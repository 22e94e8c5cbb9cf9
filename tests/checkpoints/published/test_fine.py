"""Published fine names and ours, both ways, on the published base model's list of keys."""

import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F

from fiber_cli.checkpoints.published import fine
from fiber_cli.checkpoints.published.stage import STAGES
from fiber_cli.checkpoints.weights import load_into
from fiber_cli.errors import UserError
from fiber_cli.model.config import BASE, TINY
from fiber_cli.model.pixels import normalize
from fiber_cli.tasks import declared
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.regions.task import RegionTask

V2 = dataclasses.replace(BASE, norm_image_query=False)


@pytest.fixture(scope="module")
def ours():
    """Parameters of the base model, without content."""
    with torch.device("meta"):
        return dict(RegionTask(V2).named_parameters())


def test_sizes_of_the_base_model(fine_keys, ours):
    counts = {name: parameter.numel() for name, parameter in ours.items()}

    def total(*prefixes):
        return sum(count for name, count in counts.items() if name.startswith(prefixes))

    published = fine_keys["parameters_by_part"]
    unused = 80 * 256 + 80
    assert total("encoder.image.", "detector.norms.") == published["swin body (fusion_backbone.backbone.body)"]
    assert total("encoder.text.") == published["text (fusion_backbone.language_backbone)"]
    assert total("detector.fpn.") == published["fpn"]
    assert total("detector.head.") == published["rpn.head"] - unused
    assert sum(counts.values()) == fine_keys["n_parameters"] - unused
    cross = sum(count for name, count in counts.items() if ".cross." in name)
    assert cross == fine_keys["cross_modal_parameters(i2t+t2i)"]


def test_every_published_key_has_its_place_and_every_weight_goes_back(fine_keys, fine_dtypes, ours):
    state = {}
    for key, shape in fine_keys["keys"].items():
        state[key] = torch.empty(shape, device="meta", dtype=fine_dtypes[key])
    weights = fine.from_published(state, V2, ours)
    assert {name: value.shape for name, value in weights.items()} == {name: p.shape for name, p in ours.items()}
    reasons = STAGES["fine"].reasons(fine_keys["keys"], V2, ours)
    assert len(weights) + len(reasons) == len(fine_keys["keys"])
    assert all(reasons.values())
    back = fine.to_published(ours, V2)
    assert {key: list(value.shape) for key, value in back.items()} == fine_keys["keys"]
    del state["rpn.head.bias0"]
    state["rpn.head.new"] = torch.zeros(1)
    with pytest.raises(UserError, match=r"rpn\.head\.new; .*detector\.head\.bias0"):
        fine.from_published(state, V2, ours)
    with pytest.raises(UserError, match=r"mlm\.bias"):
        fine.to_published({"mlm.bias": torch.zeros(1)}, V2)


def test_conversion_turns_colours_round():
    """A picture in the published form, blue first, and in ours give the same patches."""
    name = "encoder.image.patch_embed.proj.weight"
    weight = torch.randn(8, 3, 4, 4)
    state = fine.to_published({name: weight}, TINY)
    pixels = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ([103.53, 116.28, 123.675], [57.375, 57.12, 58.395]))
    theirs = (pixels.flip(1).float() - mean) / std
    expected = F.conv2d(theirs, state["fusion_backbone.backbone.body.patch_embed.proj.weight"], stride=4)
    torch.testing.assert_close(F.conv2d(normalize(pixels), weight, stride=4), expected, atol=1e-4, rtol=1e-4)
    back = fine.from_published(state, TINY, [name])
    assert torch.equal(back[name], weight)


def published_at_init(expected):
    """Keys that the published code leaves at their start when it reads coarse weights; the file writes
    `head{one, other}` for several."""
    keys = set()
    for pattern in expected["model_keys_left_at_init"]:
        head, _, choices = pattern.partition("{")
        keys |= {head + choice.strip() for choice in choices.rstrip("}").split(",")}
    return keys


def test_coarse_weights_start_what_the_published_loader_starts(shared):
    """All of the encoder comes over and nothing else: what the published loader takes, and v3's norms besides."""
    expected = json.loads((shared / "golden" / "coarse_to_fine_init.json").read_text())["pretrain_384"]
    fresh = published_at_init(expected)
    with torch.device("meta"):
        coarse, task = dict(CoarseTask(BASE).named_parameters()), RegionTask(BASE)
    # Meta tensors take part in the checks of names and shapes; copying them does nothing.
    changes = declared("fine").init_from
    load_into(task, coarse, expect_missing=changes.fresh, expect_unexpected=changes.dropped)
    names = dict(task.named_parameters())
    new = {name: p for name, p in names.items() if name.startswith(changes.fresh)}
    v3 = {name for name in names if ".cross.norm." in name}
    buffers = set(fine.fine_buffers(BASE))
    published_new = set(fine.to_published(new, BASE)) - buffers
    assert published_new == {key for key in fresh if "cell_anchors" not in key}
    started = {name: p for name, p in names.items() if name not in new and name not in v3}
    published_started = (set(fine.to_published(started, BASE)) | buffers) - fresh
    assert len(published_started) == expected["n_loaded"]
