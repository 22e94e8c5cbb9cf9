"""Numbers of the published model on fixed weights.

Runs every `*.safetensors` in the folder named by FIBER_GOLDEN_DIR (default ../shared/golden) with the JSON of the same
name beside it. Weights stand under `w.`, inputs under `in.`, expected outputs under `out.`.
"""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fiber_cli.checkpoints.positions import resize_position_bias
from fiber_cli.checkpoints.published import coarse as published
from fiber_cli.checkpoints.published.names import rename
from fiber_cli.model.config import FiberConfig, ImageConfig, TextConfig
from fiber_cli.model.decoder_cache import DecoderCache
from fiber_cli.model.fusion import ImageStem, TextStem
from fiber_cli.tasks.caption.cider import CiderD, CiderReward, read_document_frequency
from fiber_cli.tasks.caption.task import CaptionTask, TokenLosses
from fiber_cli.tasks.coarse.negatives import sampling_weights
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.nlvr2.task import Nlvr2Task
from fiber_cli.tasks.vqa.task import VqaTask

FOLDER = Path(os.environ.get("FIBER_GOLDEN_DIR", Path(__file__).parents[3] / "shared" / "golden"))
FILES = sorted(FOLDER.glob("*.safetensors"))
if not FILES:
    pytest.skip(
        f"no golden files in {FOLDER}; set FIBER_GOLDEN_DIR to a folder that holds them", allow_module_level=True
    )


def stage_of(path: Path) -> str | None:
    description = path.with_suffix(".json")
    return json.loads(description.read_text())["stage"] if description.is_file() else None


COARSE = [path for path in FILES if stage_of(path) == "coarse"]
RESIZE = [path for path in FILES if stage_of(path) is None]


def config_of(values: dict, image_size: int) -> FiberConfig:
    image, text = values["image"], values["text"]
    return FiberConfig(
        image=ImageConfig(
            embed_dim=image["swin_embed_dim"],
            depths=tuple(image["depths"]),
            heads=tuple(image["heads"]),
            window=image["window"],
            patch=image["patch"],
            mlp_ratio=image["mlp_ratio"],
            drop_path=0.0,
        ),
        text=TextConfig(
            layers=text["layers"],
            hidden=text["hidden"],
            heads=text["heads"],
            intermediate=text["intermediate"],
            vocab=text["vocab"],
            positions=text["max_position_embeddings"],
            pad_id=text["pad_id"],
            dropout=0.0,
            norm_eps=text["layer_norm_eps"],
        ),
        fusion_layers=values["num_fuse_block"],
        hidden=values["cross_modal_hidden"],
        image_size=(image_size, image_size),
        itc_pooler=values["itc_pooler"],
        mlm_norm_eps=values["mlm_head_layer_norm_eps"],
    )


class Golden:
    """One golden file: its tensors, settings and tolerances, and our model with its weights."""

    def __init__(self, path: Path):
        self.meta = json.loads(path.with_suffix(".json").read_text())
        self.tensors = load_file(path)
        self.config = config_of(self.meta["config"], self.meta["image_size"])
        self.official = {k[2:]: t for k, t in self.tensors.items() if k.startswith("w.")}

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.tensors[key]

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        return {k.removeprefix(prefix): t for k, t in self.tensors.items() if k.startswith(prefix)}

    def close(self, actual: torch.Tensor, key: str, kind: str) -> None:
        expected = self.tensors[key]
        rule = self.meta["tolerance"][kind]
        atol, rtol = (
            float(m[1]) if (m := re.search(rf"{name} ([\d.e-]+)", rule)) else 0.0 for name in ("atol", "rtol")
        )
        torch.testing.assert_close(
            actual.detach().to(expected.dtype), expected, atol=atol, rtol=rtol, msg=lambda m: f"{key}: {m}"
        )

    def load(self, task: nn.Module) -> nn.Module:
        """The task with the file's weights; those of other tasks, all of which the file holds, are left out."""
        names = dict(task.named_parameters())
        other = {k for k in self.official if (name := rename(k, published.COARSE)) and name not in names}
        other |= {k for k in self.official if k.startswith("rank_output.") and "itm.fc.weight" not in names}
        unused = published.unused_shapes(self.config, names)
        official = {k: t for k, t in self.official.items() if k not in other or k in unused}
        task.load_state_dict(published.from_published(official, self.config, names))
        return task.eval()

    def coarse(self, **settings) -> CoarseTask:
        return self.load(CoarseTask(self.config, **settings))


@pytest.fixture(scope="module", params=COARSE, ids=lambda path: path.stem)
def golden(request) -> Golden:
    return Golden(request.param)


@pytest.fixture(scope="module")
def task(golden: Golden) -> CoarseTask:
    return golden.coarse()


@torch.no_grad()
def test_dual_encoder(golden, task):
    image = task.encoder.image_stem(golden["in.image"])
    text = task.encoder.text_stem(golden["in.text_ids"], golden["in.text_masks"].bool())
    golden.close(task.image_features(image), "out.itc.image_cls", "features")
    golden.close(task.text_features(text), "out.itc.text_cls", "features")
    top = task.encoder.image_top(image)
    golden.close(top.flatten(1, 2), "out.debug.image_only.vit.layers.3.blocks.1", "features")
    image_tokens = task.itc_pool.image_transform(task.encoder.image.norm(top)).flatten(1, 2)
    golden.close(image_tokens, "out.itc.image_feats", "features")
    text_tokens = task.itc_pool.text_transform(task.encoder.text_top(text))
    golden.close(text_tokens, "out.itc.text_feats", "features")


@torch.no_grad()
def test_fused(golden, task):
    image = task.encoder.image_stem(golden["in.image"])
    text = task.encoder.text_stem(golden["in.text_ids"], golden["in.text_masks"].bool())
    fused = task.encoder.fuse(image, text)
    golden.close(fused.text, f"out.debug.fused.text.layer.{golden.config.text.layers - 1}", "features")
    golden.close(task.pool.text_transform(fused.text), "out.fused.text_feats", "features")
    image_tokens = task.pool.image_transform(fused.pyramid[-1]).flatten(1, 2)
    golden.close(image_tokens, "out.fused.image_feats", "features")
    golden.close(task.pool(fused.pyramid[-1], fused.text), "out.fused.cls_feats", "features")
    golden.close(task.match(image, text), "out.itm_logits", "features")


@torch.no_grad()
def test_mlm(golden, task):
    mask = golden["in.text_masks"].bool()
    image = task.encoder.image_stem(golden["in.image"])
    fused = task.encoder.fuse(image, task.encoder.text_stem(golden["in.text_ids_mlm"], mask))
    logits = task.mlm(task.pool.text_transform(fused.text))
    golden.close(logits, "out.mlm_logits", "vocabulary_logits")
    loss = task.mlm_loss(image, masked_batch(golden))
    golden.close(loss, "out.mlm_loss", "losses")


def masked_batch(golden: Golden) -> dict[str, torch.Tensor]:
    names = {"mlm_ids": "in.text_ids_mlm", "mask": "in.text_masks", "mlm_labels": "in.text_labels_mlm"}
    batch = {name: golden[key] for name, key in names.items()}
    return batch | {"mask": batch["mask"].bool()}


def set_queue(task: CoarseTask, golden: Golden, filled: int) -> None:
    task.load_resume_state(
        {
            "image_queue": golden["in.queue.image_queue"].T,
            "text_queue": golden["in.queue.text_queue"].T,
            "queue_position": torch.tensor([int(golden["in.queue.queue_ptr"]), filled]),
        }
    )


@torch.no_grad()
@pytest.mark.parametrize("variant", ["queue", "queue_total0", "noqueue"])
def test_itc(golden, variant):
    size = 0 if variant == "noqueue" else golden.meta["queue_size"]
    task = golden.coarse(queue_size=size, itc_queue_noise=True, itc_detach_keys=True)
    filled = int(golden["in.queue.queue_total"]) if variant == "queue" else 0
    set_queue(task, golden, filled)
    image, text = golden["out.itc.image_cls"], golden["out.itc.text_cls"]
    loss, similarities = task.itc_loss(image, text)
    golden.close(loss, f"out.itc.{variant}.loss", "losses")
    for name, similarity in zip(("i2t", "t2i"), similarities, strict=True):
        columns = len(image) + filled
        expected = golden[f"out.itc.{variant}.sim_{name}"][:, :columns]
        atol = float(golden.meta["tolerance"]["similarities"].split()[1])
        torch.testing.assert_close(similarity, expected, atol=atol, rtol=0)
        golden.close(sampling_weights(similarity, 0), f"out.itc.{variant}.weights_{name}", "sampling_weights")
    # Without the published noise the denominator holds the batch and the filled columns only.
    clean = golden.coarse(queue_size=size)
    set_queue(clean, golden, filled)
    sims = [golden[f"out.itc.{variant}.sim_{n}"][:, : len(image) + filled] for n in ("i2t", "t2i")]
    target = torch.arange(len(image))
    expected = sum(torch.nn.functional.cross_entropy(s, target) for s in sims) / 2
    torch.testing.assert_close(clean.itc_loss(image, text)[0], expected, atol=1e-5, rtol=1e-5)


def test_queue_update(golden):
    task = golden.coarse(queue_size=golden.meta["queue_size"])
    total = int(golden["in.queue.queue_total"])
    set_queue(task, golden, total)
    task.queue.push(golden["out.itc.image_cls"], golden["out.itc.text_cls"])
    golden.close(task.queue.image.T, "out.queue_after.image_queue", "features")
    golden.close(task.queue.text.T, "out.queue_after.text_queue", "features")
    assert task.queue.start == int(golden["out.queue_after.queue_ptr"])
    assert task.queue.filled == min(int(golden["out.queue_after.queue_total"]), task.queue.size)


def test_pretraining_step_and_gradients(golden):
    """MLM + ITC + ITM with the stored negatives, published settings, dropout 0."""
    task = golden.coarse(queue_size=golden.meta["queue_size"], itc_queue_noise=True, itc_detach_keys=True)
    set_queue(task, golden, int(golden["in.queue.queue_total"]))
    mask = golden["in.text_masks"].bool()
    image = task.encoder.image_stem(golden["in.image"])
    text = task.encoder.text_stem(golden["in.text_ids"], mask)
    itc, _ = task.itc_loss(task.image_features(image), task.text_features(text))
    mlm = task.mlm_loss(image, masked_batch(golden))
    pixels = torch.cat([golden["in.image"], golden["in.queue.image_input_queue"]])
    ids = torch.cat([golden["in.text_ids"], golden["in.queue.text_input_queue"]])
    masks = torch.cat([golden["in.text_masks"], golden["in.queue.text_input_mask_queue"]]).bool()
    image_rows, text_rows = golden["in.pretrain.image_neg_idx"], golden["in.pretrain.text_neg_idx"]
    negative_image: ImageStem = task.encoder.image_stem(pixels[image_rows])
    negative_text: TextStem = task.encoder.text_stem(ids[text_rows], masks[text_rows])
    itm, _ = task.itm_loss(image, text, negative_image, negative_text)
    for name, loss in (("mlm", mlm), ("itc", itc), ("itm", itm), ("total", mlm + itc + itm)):
        golden.close(loss, f"out.pretrain.{name}_loss", "losses")

    (mlm + itc + itm).backward()
    gradients = {name: p.grad for name, p in task.named_parameters() if p.grad is not None}
    official = published.to_published(gradients, golden.config)
    for name, expected in golden.group("out.grad.").items():
        error = (official[name] - expected).abs().max()
        assert error <= 1e-3 * expected.abs().max() + 1e-6, f"gradient of {name}: off by {error}"
    for name, expected in golden.meta["grad_norms_of_pretrain_total_loss"].items():
        if expected is not None and expected > 1e-6:
            actual = float(official[name].norm())
            assert actual == pytest.approx(expected, rel=1e-3), f"gradient norm of {name}"


@torch.no_grad()
def test_decode(golden, task):
    """Caption states and logits; step by step with a cache as in one pass."""
    encoder = caption_task(golden).encoder
    memory = encoder.image_top(encoder.image_stem(golden["in.image"])).flatten(1, 2)
    golden.close(memory, "out.caption.image_embeds", "features")
    ids, mask = golden["in.text_ids"], golden["in.text_masks"].bool()
    states = encoder.decode(memory, ids, mask=mask)
    features = task.pool.text_transform(states)
    golden.close(features, "out.caption.text_feats", "features")
    golden.close(task.mlm(features), "out.caption.logits", "vocabulary_logits")
    cache = DecoderCache(golden.config.text.layers)
    steps = [encoder.decode(memory, ids[:, i : i + 1], cache, mask[:, i : i + 1]) for i in range(ids.shape[1])]
    torch.testing.assert_close(torch.cat(steps, 1), states, atol=1e-5, rtol=1e-5)


def caption_task(golden: Golden, *, scale: float = 1.0, bias: torch.Tensor | float = 0.0, **settings) -> CaptionTask:
    """`scale` multiplies the vocabulary logits, then `bias` is added to them."""
    ids = {f"{kind}_id": number for kind, number in golden.meta["config"]["special_ids"].items()}
    task = CaptionTask(golden.config, **ids, **settings)
    golden.load(task)
    with torch.no_grad():
        task.mlm.decoder.weight.mul_(scale)
        task.mlm.bias.mul_(scale).add_(bias)
    return task.eval()


def caption_losses(golden: Golden, task: CaptionTask, texts: str = "in.") -> TokenLosses:
    memory = task.captioner.memory(golden["in.image"])
    return task.cross_entropies(task.captioner, memory, golden[f"{texts}text_ids"], golden[f"{texts}text_masks"].bool())


def caption_batch(golden: Golden, monkeypatch) -> dict:
    """The stored pixels are normalised already."""
    monkeypatch.setattr("fiber_cli.tasks.caption.task.normalize", lambda pixels: pixels)
    return {"pixels": golden["in.image"], "ids": golden["in.text_ids"], "mask": golden["in.text_masks"].bool()}


@torch.no_grad()
def test_caption_likelihood(golden, monkeypatch):
    task, batch = caption_task(golden), caption_batch(golden, monkeypatch)
    assert torch.equal(task.labels(golden["in.text_ids"]), golden["out.caption_mle_labels"])
    golden.close(task(batch)["loss"], "out.caption_mle_loss", "losses")
    golden.close(task.train()(batch)["loss"], "out.caption_mle_loss", "losses")
    as_published = caption_task(golden, objective="gold", gold_as_published=True)
    golden.close(as_published(batch)["loss"], "out.caption_gold_eval_loss", "losses")
    golden.close(caption_task(golden, objective="gold")(batch)["loss"], "out.caption_mle_loss", "losses")
    golden.close(caption_task(golden, objective="cider")(batch)["loss"], "out.caption_cider_eval_loss", "losses")


@torch.no_grad()
@pytest.mark.parametrize("variant", ["gold", "gold2"])
def test_gold(golden, variant):
    task = caption_task(golden, scale=float(golden["in.gold.mlm_scale"]), objective="gold", gold_as_published=True)
    task.refresh_frozen(0)
    if variant == "gold2":
        task.mlm.bias.add_(golden["in.gold2.mlm_bias_delta"])
    losses = caption_losses(golden, task, "in.gold.")
    ids, mask = golden["in.gold.text_ids"], golden["in.gold.text_masks"].bool()
    assert torch.equal(task.labels(ids), golden["out.gold.labels"])
    weights = task.gold_weights(golden["in.image"], ids, mask)
    golden.close(weights, f"out.{variant}.weights", "features")
    golden.close(task.gold_loss(losses, weights), f"out.{variant}.loss", "losses")
    # Ours divides by the real labels instead.
    task.gold_as_published = False
    rows = (golden[f"out.{variant}.weights"] * losses.entropies).sum(1)
    torch.testing.assert_close(task.gold_loss(losses, weights), (rows / losses.real.sum(1)).mean())


class StubTokenizer:
    """The golden files' tokeniser."""

    def batch_decode(self, rows, skip_special_tokens):
        assert skip_special_tokens
        return [" ".join("" if i < 4 else f"w{i}" for i in row) for row in rows]


@torch.no_grad()
def test_cider_optimisation(golden, monkeypatch):
    given = golden.meta["scst_settings"]
    assert given["mle_weight"] + given["rl_weight"] == 1
    settings = {"cider_samples": given["samples_per_image"], "cider_weight": given["rl_weight"]}
    task = caption_task(golden, bias=golden["in.scst.mlm_bias_delta"], objective="cider", **settings)
    table = read_document_frequency(FOLDER / given["df_file"])
    task.reward = CiderReward(CiderD(table), StubTokenizer())
    drawn = golden["in.scst.sampled_text_ids"]
    monkeypatch.setattr("fiber_cli.tasks.caption.task.sample", lambda *args, **kwargs: drawn)
    batch = caption_batch(golden, monkeypatch) | {"references": golden.meta["scst"]["gt_txt"]}
    golden.close(task.train()(batch)["loss"], "out.scst.loss", "losses")
    rewards = torch.from_numpy(task.reward(drawn, batch["references"]))
    torch.testing.assert_close(rewards, golden["out.scst.rewards"], atol=1e-9, rtol=0)


@torch.no_grad()
def test_published_beam_search(golden):
    for number, variant in enumerate(golden.meta["beams"]):
        bias = torch.zeros(golden.config.text.vocab)
        special = golden.meta["config"]["special_ids"]
        bias[special["sep"]], bias[special["pad"]] = variant["sep"], variant["pad"]
        task = caption_task(golden, bias=bias, beam=variant["beam"], max_length=variant["max_len"])
        task.search_as_published = True
        tokens = task.caption(task.captioner.memory(golden["in.image"]))
        assert torch.equal(tokens, golden[f"out.beam.{number}.tokens"]), f"search {number}"


@torch.no_grad()
def test_vqa(golden, monkeypatch):
    monkeypatch.setattr("fiber_cli.tasks.vqa.task.normalize", lambda pixels: pixels)
    task = golden.load(VqaTask(golden.config, labels=golden.meta["config"]["vqa_label_count"]))
    targets = torch.zeros_like(golden["in.vqa_targets"])
    for row, (labels, scores) in enumerate(zip(golden.meta["vqa_labels"], golden.meta["vqa_scores"], strict=True)):
        targets[row, labels] = torch.tensor(scores)
    assert torch.equal(targets, golden["in.vqa_targets"])
    batch = {"pixels": golden["in.image"], "ids": golden["in.text_ids"], "mask": golden["in.text_masks"].bool()}
    golden.close(task.batch_logits(batch), "out.vqa_logits", "features")
    losses = task(batch | {"targets": targets})
    golden.close(losses["loss"], "out.vqa_loss", "losses")
    golden.close(losses["vqa_score"], "out.vqa_score_metric", "losses")
    assert torch.equal(task.predict(batch), golden["out.vqa_logits"].argmax(1))


@torch.no_grad()
def test_nlvr2(golden, monkeypatch):
    monkeypatch.setattr("fiber_cli.tasks.nlvr2.task.normalize", lambda pixels: pixels)
    task = golden.load(Nlvr2Task(golden.config))
    pixels = torch.stack([golden["in.image"], golden["in.image_1"]], 1)
    batch = {"pixels": pixels, "ids": golden["in.text_ids"], "mask": golden["in.text_masks"].bool()}
    golden.close(task.logits(batch), "out.nlvr2_logits", "features")
    labels = golden["in.nlvr2_answers"]
    golden.close(task(batch | {"labels": labels})["loss"], "out.nlvr2_loss", "losses")


@pytest.mark.parametrize("path", RESIZE, ids=lambda path: path.stem)
def test_position_bias_resize(path):
    tensors = load_file(path)
    names = [key[3:] for key in tensors if key.startswith("in.")]
    assert names
    for name in names:
        new_window = int(re.match(r"\d+to(\d+)\.", name)[1]) // 32
        resized = resize_position_bias(tensors[f"in.{name}"], new_window)
        # Values up to 5, of which 16 are summed in an order that is the processor's.
        torch.testing.assert_close(resized, tensors[f"out.{name}"], atol=5e-6, rtol=1e-5)
