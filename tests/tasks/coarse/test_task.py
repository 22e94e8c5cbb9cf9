"""The coarse task: shared stems change no number, ranks change no number, negatives are what they should be."""

import dataclasses
import zlib

import pytest
import torch
import torch.distributed as td
import torch.multiprocessing as mp
import torch.nn.functional as F

from benchmarks.coarse_step import count_operations, random_batch, step_from_pixels
from fiber_cli.data.images import normalize
from fiber_cli.errors import UserError
from fiber_cli.model.config import BASE, FiberConfig, ImageConfig, TextConfig
from fiber_cli.tasks.coarse.task import CoarseTask, sampling_weights

SMALL = FiberConfig(
    image=ImageConfig(embed_dim=8, depths=(1, 1, 2, 2), heads=(1, 2, 4, 8), window=2, drop_path=0.0),
    text=TextConfig(layers=4, hidden=32, heads=4, intermediate=64, vocab=60, positions=40, dropout=0.0),
    fusion_layers=3,
    hidden=24,
    image_size=(64, 64),
)


def make(config: FiberConfig = SMALL, **settings) -> CoarseTask:
    torch.manual_seed(0)
    task = CoarseTask(config, **settings)
    for name, parameter in task.named_parameters():
        if name.endswith(".alpha"):
            torch.nn.init.constant_(parameter, 0.5)
        elif parameter.ndim > 1:
            # By name, so that heads left out change no other parameter.
            torch.nn.init.normal_(
                parameter, std=0.1, generator=torch.Generator().manual_seed(zlib.crc32(name.encode()))
            )
    return task


def gradients(task: CoarseTask, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    task.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}


def test_shared_stems_give_the_losses_and_gradients_of_every_pass_from_pixels():
    task, batch = make(), random_batch(SMALL, 6, length=12)
    shared = task(batch)
    expected = step_from_pixels(task, batch)
    for name in ("mlm_loss", "itc_loss", "itm_loss"):
        torch.testing.assert_close(shared[name], expected[name].detach(), atol=1e-5, rtol=0)
    ours, theirs = gradients(task, shared["loss"]), gradients(task, expected["loss"])
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-6, rtol=1e-3)


@pytest.mark.slow
def test_base_step_needs_half_the_operations():
    """At most half the floating-point operations of the step from pixels, losses equal to 1e-5."""
    config = dataclasses.replace(
        BASE,
        image=dataclasses.replace(BASE.image, drop_path=0.0),
        text=dataclasses.replace(BASE.text, dropout=0.0),
    )
    torch.manual_seed(0)
    task, batch = CoarseTask(config), random_batch(config, 2)
    results = {}

    def shared():
        results["shared"] = task(batch)
        results["shared"]["loss"].backward()

    def pixels():
        results["pixels"] = step_from_pixels(task, batch)
        results["pixels"]["loss"].backward()

    operations = count_operations(shared), count_operations(pixels)
    assert operations[0] <= 0.5 * operations[1]
    for name in ("mlm_loss", "itc_loss", "itm_loss"):
        torch.testing.assert_close(results["shared"][name], results["pixels"][name].detach(), atol=1e-5, rtol=0)


def itm_inputs(task: CoarseTask, batch: dict, pairs: int) -> tuple:
    """The first pairs of a batch with their hard negatives, everything from pixels and tokens."""
    encoder, pixels = task.encoder, normalize(batch["pixels"])
    image, text = encoder.image_stem(pixels), encoder.text_stem(batch["ids"], batch["mask"])
    _, similarities = task.itc_loss(task.image_features(image), task.text_features(text))
    weights = tuple(sampling_weights(s, 0) for s in similarities)
    image_rows, text_rows = (rows[:pairs] for rows in task.draw_negatives(batch["image_key"], batch["seed"], weights))
    own = torch.arange(pairs)
    return (
        encoder.image_stem(pixels[own]),
        encoder.text_stem(batch["ids"][own], batch["mask"][own]),
        encoder.image_stem(pixels[image_rows]),
        encoder.text_stem(batch["ids"][text_rows], batch["mask"][text_rows]),
    )


def test_each_objective_can_be_switched_off_and_weighted():
    batch = random_batch(SMALL, 4, length=10)
    full = make()(batch)
    assert {"mlm_loss", "itc_loss", "itm_loss"} <= full.keys()
    torch.testing.assert_close(full["loss"].detach(), full["mlm_loss"] + full["itc_loss"] + full["itm_loss"])
    only_itc = make(mlm=0.0, itm=0.0)(batch)
    assert "mlm_loss" not in only_itc and "itm_loss" not in only_itc
    torch.testing.assert_close(only_itc["loss"].detach(), full["itc_loss"])
    weighted = make(mlm=2.0, itm=0.0, itc=0.5)(batch)
    torch.testing.assert_close(weighted["loss"].detach(), 2 * full["mlm_loss"] + 0.5 * full["itc_loss"])
    some = make(mlm_pairs=2, itm_pairs=2)
    some_itm, _ = some.itm_loss(*itm_inputs(some, batch, 2))
    torch.testing.assert_close(some(batch)["itm_loss"], some_itm.detach())
    torch.testing.assert_close(some(batch)["itc_loss"], full["itc_loss"])
    stem = some.encoder.image_stem(normalize(batch["pixels"][:2]))
    some_mlm = some.mlm_loss(stem, *(batch[name][:2] for name in ("mlm_ids", "mask", "mlm_labels")))
    torch.testing.assert_close(some(batch)["mlm_loss"], some_mlm.detach())
    assert make(itc=0.0, itm_negatives="random")(batch).keys() >= {"mlm_loss", "itm_loss"}


def test_negatives_follow_the_similarities_and_never_show_the_same_image():
    task = make()
    key = torch.tensor([0, 1, 2, 3, 3, 4])  # rows 3 and 4 are two captions of one image
    similarities = torch.randn(6, 6, generator=torch.Generator().manual_seed(3))
    weights = sampling_weights(similarities, 0), sampling_weights(similarities.T, 0)
    counts = torch.zeros(2, 6, 6)
    draws = 4000
    for seed in range(draws):
        for side, rows in enumerate(task.draw_negatives(key, seed, weights)):
            counts[side, torch.arange(6), rows] += 1
    assert counts[:, torch.arange(6), torch.arange(6)].sum() == 0
    assert counts[:, 3, 4].sum() == 0 and counts[:, 4, 3].sum() == 0
    for side, sims in ((0, similarities.T), (1, similarities)):
        allowed = sims.softmax(1).masked_fill(key[:, None] == key[None, :], 0.0)
        expected = allowed / allowed.sum(1, keepdim=True)
        assert (counts[side] / draws - expected).abs().max() < 0.04
    uniform = torch.zeros(6)
    for seed in range(draws):
        uniform[task.draw_negatives(key, seed, None)[0][0]] += 1
    assert (uniform[1:] / draws - 0.2).abs().max() < 0.03
    with pytest.raises(UserError, match="needs a negative"):
        task.draw_negatives(key[:1], 0, None)
    lone = task.draw_negatives(torch.zeros(3, dtype=torch.long), 0, None)[0]
    assert (lone != torch.arange(3)).all()  # only one image in the batch: any other row


def test_itc_gradient_passes_through_the_keys_unless_detached():
    features = F.normalize(torch.randn(5, 24), dim=1), F.normalize(torch.randn(5, 24), dim=1)

    def image_gradient(**settings):
        image, text = (f.clone().requires_grad_() for f in features)
        make(**settings).itc_loss(image, text)[0].backward()
        return image.grad

    image, text = features[0].clone().requires_grad_(), features[1]
    target, temperature = torch.arange(5), 0.07
    clip = (F.cross_entropy(image @ text.T / temperature, target)
            + F.cross_entropy(text @ image.T / temperature, target)) / 2  # fmt: skip
    clip.backward()
    torch.testing.assert_close(image_gradient(), image.grad)
    one_side = features[0].clone().requires_grad_()
    (F.cross_entropy(one_side @ text.T / temperature, target) / 2).backward()
    torch.testing.assert_close(image_gradient(itc_detach_keys=True), one_side.grad)


def test_temperature_is_clamped_in_value_and_still_learns():
    features = F.normalize(torch.randn(4, 24), dim=1)
    for start, used in ((1e-6, 0.001), (5.0, 1.0)):
        task = make(temperature=start)
        loss, similarities = task.itc_loss(features, features)
        torch.testing.assert_close(similarities[0], features @ features.T / used)
        loss.backward()
        assert torch.isfinite(task.temperature.grad)
    assert task.temperature.grad != 0


def test_queue_keeps_the_newest_and_enters_the_denominator():
    task = make(queue_size=5).train()
    rows = F.normalize(torch.randn(7, 24), dim=1)
    task.push_queue(rows[:3], rows[:3])
    assert (task.queue_start, task.queue_filled) == (3, 3)
    torch.testing.assert_close(task.image_queue[:3], rows[:3])
    task.push_queue(rows[3:], -rows[3:])
    assert (task.queue_start, task.queue_filled) == (2, 5)
    torch.testing.assert_close(task.text_queue, torch.stack([-rows[5], -rows[6], rows[2], -rows[3], -rows[4]]))
    loss, similarities = task.itc_loss(rows[:2], rows[2:4])
    assert similarities[0].shape == (2, 7)
    torch.testing.assert_close(similarities[0][:, 2:], rows[:2] @ task.text_queue.T / 0.07)
    restored = make(queue_size=5)
    restored.load_resume_state(task.resume_state())
    torch.testing.assert_close(restored.itc_loss(rows[:2], rows[2:4])[0], loss)
    assert make().resume_state() == {}


def _rank_step(rank: int, world: int, folder: str, settings: dict) -> None:
    td.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    torch.set_num_threads(1)
    task, batch = make(**settings).train(), random_batch(SMALL, 8, length=12)
    rows = slice(rank * 8 // world, (rank + 1) * 8 // world)
    local = {k: v[rows] if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
    losses = [task(local) for _ in range(2)][-1]  # the second step sees the first one's queue
    grads = gradients(task, losses["loss"])
    for value in (*grads.values(), *(losses[n] for n in ("loss", "mlm_loss", "itc_loss", "itm_loss"))):
        value = value.detach()
        td.all_reduce(value)
        value /= world
    if rank == 0:
        torch.save({"losses": {k: v.detach() for k, v in losses.items()}, "grads": grads}, f"{folder}/out.pt")
    td.destroy_process_group()


@pytest.mark.parametrize("settings", [{}, {"queue_size": 20}, {"itc_detach_keys": True}], ids=str)
def test_two_ranks_equal_one(tmp_path, settings):
    results = []
    for world in (1, 2):
        folder = tmp_path / str(world)
        folder.mkdir()
        mp.spawn(_rank_step, (world, str(folder), settings), nprocs=world)
        results.append(torch.load(folder / "out.pt", weights_only=True))
    one, two = results
    for name in ("loss", "mlm_loss", "itc_loss", "itm_loss"):
        torch.testing.assert_close(two["losses"][name], one["losses"][name], atol=1e-5, rtol=0)
    assert one["grads"].keys() == two["grads"].keys()
    for name, gradient in one["grads"].items():
        torch.testing.assert_close(two["grads"][name], gradient, atol=1e-5, rtol=1e-4)
