"""The coarse task: shared stems change no number, ranks change no number, objectives can be switched off."""

import dataclasses
import zlib
from functools import partial

import pytest
import torch
import torch.distributed as td
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch._subclasses.fake_tensor import DynamicOutputShapeException

from benchmarks.coarse_step import collated, operations_of_ways, random_batch, step_from_pixels
from benchmarks.launches import count_step
from fiber_cli.data.padding import without_padding
from fiber_cli.model.config import BASE, FiberConfig, ImageConfig, TextConfig
from fiber_cli.model.pixels import normalize
from fiber_cli.tasks.abilities import Embedding, Matching
from fiber_cli.tasks.coarse.negatives import draw_negatives
from fiber_cli.tasks.coarse.task import CoarseTask
from fiber_cli.tasks.token_losses import labelled_positions

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


@pytest.mark.parametrize(
    "changes",
    [
        {"fusion_layers": 0},
        {"fusion": "top"},
        {"fusion_attention": "merged"},
        {"fusion_gate": False},
        {"fusion": "top", "norm_image_memory": True},
    ],
    ids=["none", "on top", "merged", "no gates", "on top with norms"],
)
def test_shared_stems_change_a_number_of_another_way_of_fusing(changes):
    """All objectives, with all parameters that learn."""
    config = dataclasses.replace(SMALL, **changes)
    task, batch = make(config), random_batch(config, 6, length=12)
    shared = task(batch)
    expected = step_from_pixels(task, batch)
    for name in ("mlm_loss", "itc_loss", "itm_loss"):
        torch.testing.assert_close(shared[name], expected[name].detach(), atol=1e-5, rtol=0)
    assert gradients(task, shared["loss"]).keys() == {name for name, _ in task.named_parameters()}


@pytest.mark.slow
def test_base_step_needs_half_the_operations():
    """At most half the floating-point operations of the step from pixels, losses equal to 1e-5."""
    config = dataclasses.replace(
        BASE,
        image=dataclasses.replace(BASE.image, drop_path=0.0),
        text=dataclasses.replace(BASE.text, dropout=0.0),
    )
    operations = operations_of_ways(config, 2)
    assert operations["shared stems"] <= 0.5 * operations["from pixels"]
    torch.manual_seed(0)
    task, batch = CoarseTask(config), random_batch(config, 2)
    with torch.no_grad():
        shared, expected = task(batch), step_from_pixels(task, batch)
    for name in ("mlm_loss", "itc_loss", "itm_loss"):
        torch.testing.assert_close(shared[name], expected[name], atol=1e-5, rtol=0)


def itm_inputs(task: CoarseTask, batch: dict, pairs: int) -> tuple:
    """The first pairs of a batch with their hard negatives, everything from pixels and tokens."""
    encoder, pixels = task.encoder, normalize(batch["pixels"])
    image, text = encoder.image_stem(pixels), encoder.text_stem(batch["ids"], batch["mask"])
    _, similarities = task.itc_loss(task.image_features(image), task.text_features(text))
    drawn = draw_negatives(batch["image_key"], batch["seed"], task.negative_weights(similarities))
    image_rows, text_rows = drawn.first(pairs)
    return (
        encoder.image_stem(pixels[:pairs]),
        encoder.text_stem(batch["ids"][:pairs], batch["mask"][:pairs]),
        encoder.image_stem(pixels[image_rows]),
        encoder.text_stem(batch["ids"][text_rows], batch["mask"][text_rows]),
    )


def test_each_objective_can_be_switched_off_and_weighted():
    batch = random_batch(SMALL, 4, length=10)
    full = make()(batch)
    assert {"mlm_loss", "itc_loss", "itm_loss"} <= full.keys()
    torch.testing.assert_close(full["loss"].detach(), full["mlm_loss"] + full["itc_loss"] + full["itm_loss"])
    only_itc = make(mlm=0.0, itm=0.0)(batch)
    assert not {"mlm_loss", "itm_loss"} & only_itc.keys()
    torch.testing.assert_close(only_itc["loss"].detach(), full["itc_loss"])
    weighted = make(mlm=2.0, itm=0.0, itc=0.5)(batch)
    torch.testing.assert_close(weighted["loss"].detach(), 2 * full["mlm_loss"] + 0.5 * full["itc_loss"])
    some = make(mlm_pairs=2, itm_pairs=2)
    some_itm, _ = some.itm_loss(*itm_inputs(some, batch, 2))
    torch.testing.assert_close(some(batch)["itm_loss"], some_itm.detach())
    torch.testing.assert_close(some(batch)["itc_loss"], full["itc_loss"])
    stem = some.encoder.image_stem(normalize(batch["pixels"][:2]))
    some_mlm = make().mlm_loss(stem, {name: batch[name][:2] for name in ("mlm_ids", "mask", "mlm_labels")})
    torch.testing.assert_close(some(batch)["mlm_loss"], some_mlm.detach())
    assert make(itc=0.0, itm_negatives="random")(batch).keys() >= {"mlm_loss", "itm_loss"}


def test_itc_gradient_passes_through_the_keys_unless_detached():
    features = F.normalize(torch.randn(5, 24), dim=1), F.normalize(torch.randn(5, 24), dim=1)

    def image_gradient(**settings):
        image, text = (f.clone().requires_grad_() for f in features)
        make(**settings).itc_loss(image, text)[0].backward()
        return image.grad

    image, text = features[0].clone().requires_grad_(), features[1]
    target, temperature = torch.arange(5), 0.07
    image_loss = F.cross_entropy(image @ text.T / temperature, target)
    text_loss = F.cross_entropy(text @ image.T / temperature, target)
    ((image_loss + text_loss) / 2).backward()
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


def test_queued_features_enter_the_denominator_and_are_resumed():
    task = make(queue_size=5).train()
    rows = F.normalize(torch.randn(7, 24), dim=1)
    task.queue.push(rows[:3], -rows[:3])
    loss, similarities = task.itc_loss(rows[3:5], rows[5:7])
    assert similarities.image_to_text.shape == (2, 5)
    torch.testing.assert_close(similarities.image_to_text[:, 2:], rows[3:5] @ task.queue.text[:3].T / 0.07)
    torch.testing.assert_close(similarities.text_to_image[:, 2:], rows[5:7] @ task.queue.image[:3].T / 0.07)
    restored = make(queue_size=5)
    restored.load_resume_state(task.resume_state())
    torch.testing.assert_close(restored.itc_loss(rows[3:5], rows[5:7])[0], loss)
    assert make().resume_state() == {}


def test_unwritten_rows_of_the_queue_count_only_as_published():
    rows = F.normalize(torch.randn(4, 24), dim=1)
    task = make(queue_size=5)
    clean, _ = task.itc_loss(rows[:2], rows[2:])
    torch.testing.assert_close(clean, make().itc_loss(rows[:2], rows[2:])[0])
    noisy, similarities = make(queue_size=5, itc_queue_noise=True).itc_loss(rows[:2], rows[2:])
    assert noisy > clean
    assert similarities.image_to_text.shape == (2, 2)


def test_what_is_switched_off_is_no_ability():
    assert make().switched_off == frozenset()
    assert make(itm=0.0).switched_off == {Matching}
    assert make(itc=0.0, itm_negatives="random").switched_off == {Embedding}


#: Name → settings of the task whose steps are compared.
ON_RANKS = {"plain": {}, "queue": {"queue_size": 20}, "detached keys": {"itc_detach_keys": True}}


def second_step(settings: dict, rows: slice) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Losses and gradients of some rows of a batch, in a step that sees the queue of one before it."""
    task, batch = make(**settings).train(), random_batch(SMALL, 8, length=20)
    batch["mask"][:4, 8:] = False  # so that the first rank's batch is narrower than the second's
    batch["mlm_labels"].masked_fill_(~batch["mask"], -100)
    local = {name: value[rows] if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
    local = without_padding(local)
    task(local)
    losses = task(local)
    gradient = gradients(task, losses["loss"])
    return {name: losses[name].detach() for name in ("loss", "mlm_loss", "itc_loss", "itm_loss")}, gradient


def _two_ranks(rank: int, folder: str) -> None:
    td.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.set_num_threads(1)
    results = {}
    for name, settings in ON_RANKS.items():
        results[name] = second_step(settings, slice(rank * 4, (rank + 1) * 4))
        for values in results[name]:
            for value in values.values():
                td.all_reduce(value)
                value /= 2
    if rank == 0:
        torch.save(results, f"{folder}/out.pt")
    td.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """Name → losses and gradients, means over two ranks with half the batch each."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(_two_ranks, (str(folder),), nprocs=2)
    return torch.load(folder / "out.pt", weights_only=True)


@pytest.mark.parametrize("name", ON_RANKS)
def test_two_ranks_equal_one(two_ranks, name):
    losses, gradient = second_step(ON_RANKS[name], slice(None))
    for loss, value in losses.items():
        torch.testing.assert_close(two_ranks[name][0][loss], value, atol=1e-5, rtol=0)
    assert two_ranks[name][1].keys() == gradient.keys()
    for parameter, value in gradient.items():
        torch.testing.assert_close(two_ranks[name][1][parameter], value, atol=1e-5, rtol=1e-4)


def test_a_micro_step_waits_for_its_gpu():
    """Without `mlm_positions` it does, where it counts the masked tokens."""
    batch = collated(random_batch(SMALL, 6, length=12))
    for settings in ({"itm_margin": 0.5, "queue_size": 12}, {"itm_pairs": 2, "itm_negatives": "random"}):
        for precision in ("bf16", "fp32"):
            count_step(partial(make, **settings), batch, precision=precision, refused=True)
    del batch["mlm_positions"]
    with pytest.raises(DynamicOutputShapeException, match="nonzero"):
        count_step(make, batch)


def test_mlm_is_a_pass_of_its_own():
    """What it adds to a step of ITC and ITM, against a step of MLM alone, in operations that a GPU is given."""
    batch = collated(random_batch(SMALL, 6, length=12))
    kinds = ({}, {"mlm": 0.0}, {"itm": 0.0, "itc": 0.0})
    with_all, without, alone = (count_step(partial(make, **settings), batch).total for settings in kinds)
    assert with_all - without < 0.25 * alone


def test_positions_from_the_collator_change_the_loss():
    task, batch = make(mlm_pairs=3), random_batch(SMALL, 6, length=12)
    found = task(batch)["loss"]
    given = task(batch | {"mlm_positions": labelled_positions(batch["mlm_labels"][:3])})["loss"]
    assert torch.equal(given, found)


@pytest.mark.parametrize("kind", [{}, {"fusion_attention": "merged"}, {"fusion": "top"}, {"fusion_layers": 1}])
def test_what_the_first_pair_makes_once_changes_a_pass(kind):
    """Outputs and gradients of passes that share it, fused or not, against passes that do not."""
    config = dataclasses.replace(SMALL, **kind)
    task, batch = make(config), random_batch(config, 4, length=12)
    encoder = task.encoder
    outcomes = []
    for share in (False, True):
        image = encoder.image_stem(normalize(batch["pixels"]))
        if share:
            image = encoder.with_first_pair(image)
            assert (image.first is None) == (config.fusion == "top")
        text = encoder.text_stem(batch["ids"], batch["mask"])
        # All images twice, then some by their numbers, as for ITM.
        images = type(image).joined([image, image.rows(slice(0, 2)), image.rows(torch.tensor([3, 0]))])
        texts = type(text)(text.tokens.repeat(2, 1, 1), text.mask.repeat(2, 1))
        fused = encoder.fuse(images, texts, pooled=True)
        top = encoder.image_top(image)
        loss = fused.text.square().mean() + fused.pyramid[-1].square().mean() + top.square().mean()
        outcomes.append((loss, gradients(task, loss)))
    (loss, expected), (shared_loss, shared) = outcomes
    torch.testing.assert_close(shared_loss, loss)
    assert shared.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(shared[name], gradient, atol=1e-6, rtol=1e-3)
