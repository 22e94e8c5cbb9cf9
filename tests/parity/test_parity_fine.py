"""Numbers of the published detector on fixed weights: like `test_parity.py`, for the fine stage."""

import copy
import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torchvision.ops import batched_nms

from fiber_cli.checkpoints.published import fine as published
from fiber_cli.checkpoints.published.names import rename
from fiber_cli.model.config import FiberConfig, ImageConfig, TextConfig
from fiber_cli.model.detector import postprocess as postprocessing
from fiber_cli.model.detector.anchors import decode_boxes, make_anchors
from fiber_cli.model.detector.atss import assign
from fiber_cli.model.detector.head import HeadOutput
from fiber_cli.model.detector.losses import centerness_of
from fiber_cli.model.detector.postprocess import postprocess
from fiber_cli.tasks.regions.task import RegionTask

FOLDER = Path(os.environ.get("FIBER_GOLDEN_DIR", Path(__file__).parents[3] / "shared" / "golden"))
FILES = [
    path
    for path in sorted(FOLDER.glob("*.safetensors"))
    if path.with_suffix(".json").is_file() and json.loads(path.with_suffix(".json").read_text())["stage"] == "fine"
]
if not FILES:
    pytest.skip(
        f"no golden files of the fine stage in {FOLDER}; set FIBER_GOLDEN_DIR to a folder that holds them",
        allow_module_level=True,
    )
LEVELS = ("P3", "P4", "P5", "P6", "P7")


def config_of(values: dict) -> FiberConfig:
    swin, text = values["swin"], values["text"]
    first_fused = min(int(layers.split("-")[0]) for layers in values["cross_attention_kv_dims"])
    return FiberConfig(
        image=ImageConfig(
            embed_dim=swin["embed_dim"],
            depths=tuple(swin["depths"]),
            heads=tuple(swin["heads"]),
            window=swin["window"],
            mlp_ratio=swin["mlp_ratio"],
            drop_path=0.0,
            fixed_window=True,
        ),
        text=TextConfig(
            layers=text["layers"],
            hidden=text["hidden"],
            heads=text["heads"],
            intermediate=text["ffn"],
            vocab=text["vocab"],
            positions=text["max_positions"],
            pad_id=text["pad_id"],
            dropout=0.0,
            norm_eps=text["ln_eps"],
        ),
        fusion_layers=text["layers"] - first_fused,
        norm_image_query=values["norm_image_query"],
    )


class Golden:
    """One golden file: its tensors, settings and tolerances, and our model with its weights."""

    def __init__(self, path: Path):
        self.meta = json.loads(path.with_suffix(".json").read_text())
        self.tensors = load_file(path)
        values = self.meta["config"]
        self.config = config_of(values)
        self.settings = {
            "channels": values["dyhead"]["channels"],
            "blocks": values["dyhead"]["num_convs"],
            "drop_block": 0.0,
            "frozen_stages": sum(prefix.startswith("layers.") for prefix in values["frozen_prefixes"]),
            "unmatched_target": {"last_column": "last_token", "zeros": "none"}[self.meta["unmatched_target"]],
        }
        self.official = self.group("w.")
        images = self["in.padded_images"]
        self.pixels = images.flip(1) if self.meta["image_channel_order"] == "BGR" else images
        self.mask = self["in.attention_mask"].bool()
        self.sizes = self["in.image_sizes_hw"].tolist()
        self.boxes = [self[f"in.target{i}.boxes"] for i in range(len(self.sizes))]
        self.positive_map = self["in.positive_map"].split([len(boxes) for boxes in self.boxes])
        self.level_sizes = tuple(tuple(self[f"out.fpn.{level}"].shape[-2:]) for level in LEVELS)
        self.places = [height * width for height, width in self.level_sizes]
        names = self.meta["positive_map_test(label->tokens)"]
        self.labels, self.tokens = [int(label) for label in names], list(names.values())

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.tensors[key]

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): t for k, t in self.tensors.items() if k.startswith(prefix)}

    def numbers(self, kind: str) -> list[float]:
        return [float(n) for n in re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?:e-?\d+)?", self.meta["tolerance"][kind])]

    def close(self, actual: torch.Tensor, key: str) -> None:
        expected = self[key]
        atol = self.numbers("forward")[0] * float(expected.abs().max())
        torch.testing.assert_close(
            actual.detach().reshape(expected.shape), expected, atol=atol, rtol=0, msg=lambda m: f"{key}: {m}"
        )

    def task(self) -> RegionTask:
        task = RegionTask(self.config, **self.settings).eval()
        task.load_state_dict(published.from_published(self.official, self.config, dict(task.named_parameters())))
        return task

    def run(self, task: RegionTask) -> HeadOutput:
        dtype = next(task.parameters()).dtype
        text = task.encoder.text_stem(self["in.input_ids"], self.mask)
        return task.detect(task.encoder.image_stem(self.pixels.to(dtype)), text)

    def losses(self, task: RegionTask) -> dict[str, torch.Tensor]:
        counts = torch.tensor([len(boxes) for boxes in self.boxes])
        truth = {"boxes": torch.cat(self.boxes), "positive_map": self["in.positive_map"], "box_counts": counts}
        return task.losses(self.run(task), truth | {"mask": self.mask})

    def stored_head(self) -> HeadOutput:
        def rows(name: str) -> torch.Tensor:
            return torch.cat([self[f"out.head.{name}.{lv}"].flatten(2).transpose(1, 2) for lv in LEVELS], 1)

        logits = torch.cat([self[f"out.head.dot_product_logits.{level}"] for level in LEVELS], 1)
        return HeadOutput(rows("bbox_reg"), rows("centerness").squeeze(-1), logits, self.level_sizes)


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def golden(request) -> Golden:
    return Golden(request.param)


@pytest.fixture(scope="module")
def task(golden: Golden) -> RegionTask:
    return golden.task()


def nchw(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 3, 1, 2)


@torch.no_grad()
def test_encoder(golden, task):
    fused = task.encoder.fuse(
        task.encoder.image_stem(golden.pixels),
        task.encoder.text_stem(golden["in.input_ids"], golden.mask),
        last_norm=True,
    )
    for stage, x in enumerate(fused.pyramid):
        golden.close(x, f"out.img.layers{stage}.block{golden.config.image.depths[stage] - 1}")
    golden.close(nchw(fused.pyramid[0]), "out.swin.stage2")
    for norm, x, stage in zip(task.detector.norms, fused.pyramid[1:], (3, 4, 5), strict=True):
        golden.close(nchw(norm(x)), f"out.swin.stage{stage}")
    golden.close(fused.text, f"out.text.layer{golden.config.text.layers - 1}")
    golden.close(fused.text, "out.lang.hidden")
    golden.close(fused.text * golden.mask[:, :, None], "out.lang.embedded")


@torch.no_grad()
def test_pyramid_tower_and_head(golden, task):
    """Each part from the stored output of the one before."""
    model = task.detector
    levels = model.fpn([golden[f"out.swin.stage{stage}"] for stage in (3, 4, 5)])
    for level, x in zip(LEVELS, levels, strict=True):
        golden.close(x, f"out.fpn.{level}")
    before = [golden[f"out.fpn.{level}"] for level in LEVELS]
    for number, block in enumerate(model.head.tower):
        for level, x in zip(LEVELS, block(before), strict=True):
            golden.close(x, f"out.dyhead.tower{number}.{level}")
        before = [golden[f"out.dyhead.tower{number}.{level}"] for level in LEVELS]
    check_head(golden, model.head([golden[f"out.fpn.{lv}"] for lv in LEVELS], golden["out.lang.embedded"]))


def check_head(golden: Golden, out: HeadOutput) -> None:
    assert out.sizes == golden.level_sizes
    parts = [x.split(golden.places, 1) for x in out[:3]]
    for level, deltas, centerness, logits in zip(LEVELS, *parts, strict=True):
        shape = golden[f"out.head.bbox_reg.{level}"].shape
        golden.close(deltas.transpose(1, 2).reshape(shape), f"out.head.bbox_reg.{level}")
        golden.close(centerness, f"out.head.centerness.{level}")
        golden.close(logits, f"out.head.dot_product_logits.{level}")


@torch.no_grad()
def test_end_to_end(golden, task):
    out = golden.run(task)
    check_head(golden, out)
    score_atol, box_atol, percent = golden.numbers("detections_end_to_end")
    for name, settings in variants(golden).items():
        for i, size in enumerate(golden.sizes):
            found = postprocess(out, i, size, golden.tokens, **settings)
            labels = torch.tensor(golden.labels)[found.labels]
            boxes, scores, expected = (golden[f"out.{name}.img{i}.{part}"] for part in ("boxes", "scores", "labels"))
            distance = (found.boxes[:, None] - boxes[None]).abs().amax(-1)
            same = (labels[:, None] == expected[None]) & (distance <= box_atol)
            same &= (found.scores[:, None] - scores[None]).abs() <= score_atol
            for side in (0, 1):
                unmatched = 1 - same.any(side).double().mean()
                assert unmatched <= percent / 100, f"{name}, image {i}: {unmatched:.2%} without counterpart"


def variants(golden: Golden) -> dict[str, dict]:
    """Settings of the stored detections that follow the published rule of suppression."""
    return {
        name: {
            "score_threshold": rule["score_thresh"],
            "pre_nms_topk": rule["pre_nms_topk"],
            "nms_iou": rule["nms_thresh"],
            "max_detections": rule["max_dets"],
            "aggregation": rule["agg"],
        }
        for name, rule in golden.meta["detection_settings"].items()
        if rule["nms"] == "plus1"
    }


def plain_nms(boxes, scores, labels, threshold):
    return batched_nms(boxes, scores, labels, threshold)


def test_detections_from_stored_heads(golden, monkeypatch):
    out = golden.stored_head()
    score_atol, box_atol = golden.numbers("detections_from_stored_heads")
    rules = variants(golden)
    assert {"det", "det_max_agg"} <= rules.keys()
    for name in golden.meta["detection_settings"]:
        if name not in rules:
            # A reference with torchvision's own suppression; everything else is as in "det".
            monkeypatch.setattr(postprocessing, "class_nms", plain_nms)
        for i, size in enumerate(golden.sizes):
            found = postprocess(out, i, size, golden.tokens, **rules.get(name, rules["det"]))
            assert (found.scores.diff() <= 0).all(), "not sorted"
            expected = {part: golden[f"out.{name}.img{i}.{part}"] for part in ("boxes", "scores", "labels")}
            order = expected["scores"].argsort(descending=True, stable=True)
            torch.testing.assert_close(found.scores, expected["scores"][order], atol=score_atol, rtol=0)
            assert torch.equal(torch.tensor(golden.labels)[found.labels], expected["labels"][order]), (name, i)
            torch.testing.assert_close(found.boxes, expected["boxes"][order], atol=box_atol, rtol=0)
        monkeypatch.undo()


def test_anchors_and_assignment(golden):
    anchors = make_anchors(golden.level_sizes, torch.zeros(()))
    assert torch.equal(anchors, torch.cat([golden[f"out.anchors.{level}"] for level in LEVELS]))
    targets = []
    for i, boxes in enumerate(golden.boxes):
        stored = golden.group(f"out.train.assign.img{i}.")
        matched = assign(anchors, golden.places, boxes)
        assert torch.equal(matched, stored["matched_gt"])
        positive = matched >= 0
        assert int(positive.sum()) == int(stored["num_pos"])
        assert torch.equal(positive, stored["labels"] > 0)
        # The stored regression targets, decoded, are the matched boxes.
        decoded = decode_boxes(stored["reg_targets"][positive], anchors[positive])
        torch.testing.assert_close(decoded, boxes[matched[positive]], atol=1e-3, rtol=1e-5)
        centres = (anchors[positive, :2] + anchors[positive, 2:]) / 2
        targets.append(centerness_of(centres, boxes[matched[positive]]))
    stored = golden["out.train.assign.centerness_targets_of_positives"]
    torch.testing.assert_close(torch.cat(targets), stored, atol=1e-5, rtol=1e-5)


LOSSES = {
    "loss": "total",
    "token_loss": "loss_dot_product_token",
    "reg_loss": "loss_reg",
    "centerness_loss": "loss_centerness",
}


def test_losses(golden, task):
    losses = golden.losses(task)
    for ours, official in LOSSES.items():
        expected = float(golden[f"out.train.{official}"])
        assert losses[ours].item() == pytest.approx(expected, rel=golden.numbers("losses")[0]), ours


def test_gradients(golden):
    task = golden.task().double().train()
    golden.losses(task)["loss"].backward()
    gradients = {name: p.grad for name, p in task.named_parameters() if p.grad is not None}
    official = published.to_published(gradients, golden.config)
    rtol = golden.numbers("gradients")[0]
    for name, expected in golden.group("out.train.grad.").items():
        error = (official[name] - expected).abs().max()
        assert error <= rtol * expected.abs().max(), f"gradient of {name}: off by {error}"
    norms = golden.meta["grad_norms(None=frozen)"]["train.grad_norms"]
    rtol, ours = golden.numbers("gradient_norms")[0], set(published.to_published(named(task), golden.config))
    for name, expected in norms.items():
        if name.startswith("rpn.head.cls_logits") or name.endswith("key.bias"):
            continue
        assert name in ours
        if expected is None:
            assert name not in official, f"{name} should be frozen"
        else:
            assert float(official[name].norm()) == pytest.approx(expected, rel=rtol, abs=1e-9), name


def named(task: RegionTask) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in task.named_parameters()}


#: Share of entries that are as the file's tolerance says, in each tensor and of all tensors together. AdamW's step is
#: the sign of a gradient, so where that is rounding noise another processor's kernels go another way.
CLOSE_IN_A_TENSOR, CLOSE_OF_ALL = 0.95, 0.99


def test_optimizer_steps(golden):
    task = golden.task().train()
    rules = {name: (lr, decay) for name, lr, decay in golden.meta["optimizer"]["param_groups(name,lr,weight_decay)"]}
    theirs = {ours: official for official, ours in published.FINE.items()}
    groups, parameters = [], []
    for ours, parameter in task.named_parameters():
        if parameter.requires_grad:
            lr, decay = rules.pop(rename(ours, theirs))
            groups.append({"params": [parameter], "lr": lr, "weight_decay": decay})
            parameters.append(parameter)
    assert not rules, f"never optimised: {sorted(rules)}"
    lrs = {g: lr for g, lr, _ in golden.meta["optimizer"]["param_groups(name,lr,weight_decay)"]}
    defaults, steps = golden.meta["optimizer"]["defaults"], golden.meta["optimizer_steps"]
    optimizer = torch.optim.AdamW(groups, betas=tuple(defaults["betas"]), eps=defaults["eps"])
    ema = copy.deepcopy(named(task))
    loss_rtol, param_factor = golden.numbers("optimizer_losses"), golden.numbers("optimizer_parameters")[0]
    for step in range(steps["n"]):
        loss = golden.losses(task)["loss"]
        assert loss.item() == pytest.approx(float(golden[f"out.opt.step{step}.loss_total"]), rel=loss_rtol[step])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, steps["clip_norm"])
        optimizer.step()
        for name, value in named(task).items():
            ema[name].lerp_(value, 1 - steps["ema_decay"])
        for kind, values in (("param", named(task)), ("ema", ema)):
            official = published.to_published(values, golden.config)
            entries = []
            for name, expected in golden.group(f"out.opt.step{step}.{kind}.").items():
                longest_way = lrs[name] * (step + 1)
                error = (official[name] - expected).abs()
                close = error <= param_factor * longest_way + 1e-6 * expected.abs()
                assert close.double().mean() >= CLOSE_IN_A_TENSOR, f"{kind} of {name}: off by {error.max()}"
                assert error.max() <= 2 * longest_way, f"{kind} of {name}: off by {error.max()}"
                entries.append(close.flatten())
            assert not entries or torch.cat(entries).double().mean() >= CLOSE_OF_ALL, f"{kind} after step {step}"
