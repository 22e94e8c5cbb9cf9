"""Networks made without weights and filled from a file are those made the usual way and copied into."""

import subprocess
import sys
import threading

import pytest
import torch
from small_runs import TASKS as TASKS_IN_RUNS
from torch import nn

from fiber_cli.checkpoints import unfilled
from fiber_cli.checkpoints.config import read_config
from fiber_cli.checkpoints.directory import resolve
from fiber_cli.checkpoints.loading import load, new_task
from fiber_cli.checkpoints.unfilled import filled, without_weights
from fiber_cli.checkpoints.weights import load_into, load_weights, named_weights
from fiber_cli.errors import UserError
from fiber_cli.model.config import TINY, DetectorConfig
from fiber_cli.model.detector.detector import Detector
from fiber_cli.tasks.context import TaskContext


class Net(nn.Module):
    """Of everything that a module may hold one."""

    def __init__(self, queue: int = 5):
        super().__init__()
        self.embedding = nn.Embedding(7, 4, padding_idx=1)
        self.frozen = nn.Linear(4, 4)
        self.frozen.requires_grad_(False)
        self.tied = nn.Linear(4, 7, bias=False)
        self.tied.weight = self.embedding.weight
        shared = nn.Parameter(torch.full((3,), 2.0))
        self.first, self.second = shared, shared
        self.norm = nn.BatchNorm1d(4)
        self.scales = nn.ParameterList(torch.ones(1) * number for number in range(3))
        self.register_buffer("mean", torch.arange(4.0))
        self.register_buffer("index", torch.arange(6).view(2, 3) + 1, persistent=False)
        self.register_buffer("queue", torch.zeros(queue, 2), persistent=False)
        self.table = torch.linspace(0, 1, queue)
        nn.init.normal_(self.frozen.weight, std=0.5)
        self.embedding.weight.data[1].zero_()
        self.frozen.weight.data.mul_(3)


def weights_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in named_weights(module).items()}


def test_something_is_not_as_it_was_copied():
    torch.manual_seed(0)
    source = Net()
    source.mean.add_(1)
    weights = weights_of(source)
    copied = Net()
    load_into(copied, weights)
    module = filled(Net, weights)
    for own, other in (
        (module.state_dict(), copied.state_dict()),
        (dict(module.named_buffers()), dict(copied.named_buffers())),
    ):
        assert list(own) == list(other)
        assert all(torch.equal(own[name], other[name]) for name in own)
    assert [p.requires_grad for p in module.parameters()] == [p.requires_grad for p in copied.parameters()]
    assert module.tied.weight is module.embedding.weight
    assert module.first is module.second
    assert torch.equal(module.table, copied.table)
    assert all(type(parameter) is nn.Parameter for parameter in module.parameters())


def test_a_module_shares_memory_with_the_file_s_weights():
    weights = weights_of(Net())
    module = filled(Net, weights)
    for name, value in named_weights(module).items():
        assert value.untyped_storage().data_ptr() != weights[name].untyped_storage().data_ptr()
        assert value.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_weights_stay_narrow(dtype):
    weights = weights_of(Net())
    narrow = {name: value.to(dtype) if value.is_floating_point() else value for name, value in weights.items()}
    module = filled(Net, narrow)
    for name, value in named_weights(module).items():
        assert value.dtype == weights[name].dtype
        assert torch.equal(value, narrow[name].to(value.dtype))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda weights: weights.pop("frozen.bias"), "1 missing, 0 unexpected, 0 of another shape"),
        (lambda weights: weights.update(more=torch.ones(1)), "0 missing, 1 unexpected, 0 of another shape"),
        (lambda weights: weights.update(mean=torch.ones(5)), "0 missing, 0 unexpected, 1 of another shape"),
        (lambda weights: weights.update(index=torch.ones(2, 3)), "0 missing, 1 unexpected"),
    ],
)
def test_weights_that_do_not_fit_are_taken(change, said):
    weights = weights_of(Net())
    change(weights)
    with pytest.raises(UserError, match=said):
        filled(Net, weights)


def test_sizes_of_a_damaged_file_take_memory():
    class Huge(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(1 << 40, 4))
            self.linear = nn.Linear(1 << 22, 1 << 22)

    with pytest.raises(UserError, match="of another shape"):
        filled(Huge, {"table": torch.ones(2), "linear.weight": torch.ones(2, 2), "linear.bias": torch.ones(2)})


def test_what_is_large_and_in_no_file_is_not_computed(monkeypatch):
    monkeypatch.setattr(unfilled, "_LARGE", 20)
    weights = weights_of(Net())
    module = filled(lambda: Net(queue=30), weights)
    assert torch.equal(module.queue, torch.zeros(30, 2))
    assert not any(value.is_meta for value in (*module.parameters(), *module.buffers()))


def test_modules_of_other_threads_lose_their_weights():
    made = []
    with without_weights():
        inside = nn.Linear(2, 2)
        thread = threading.Thread(target=lambda: made.append(nn.Linear(2, 2)))
        thread.start()
        thread.join()
    assert inside.weight.is_meta
    assert not made[0].weight.is_meta
    assert not nn.Linear(2, 2).weight.is_meta


def test_an_error_leaves_later_modules_without_weights():
    def fail():
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        filled(fail, {})
    assert not nn.Linear(2, 2).weight.is_meta


@pytest.mark.parametrize("head", ["atss", "retinanet", "faster_rcnn"])
def test_a_detector_finds_other_boxes(head):
    """The anchors of torchvision's heads are neither parameters nor buffers."""
    config = DetectorConfig(channels=32, head=head)
    torch.manual_seed(0)
    usual = Detector(TINY, config).eval()
    module = filled(lambda: Detector(TINY, config), weights_of(usual)).eval()
    maps = [torch.rand(1, 8 >> level, 8 >> level, dim) for level, dim in enumerate(TINY.image.dims)]
    levels = usual.fpn([norm(x).permute(0, 3, 1, 2) for norm, x in zip(usual.norms, maps, strict=True)])
    text, mask = torch.rand(1, 5, TINY.text.hidden), torch.ones(1, 5, dtype=torch.bool)
    with torch.no_grad():
        own, other = (each.head(levels, text, mask).regions(0) for each in (module, usual))
    assert torch.equal(own.boxes, other.boxes)
    assert torch.equal(own.logits, other.logits)


@pytest.mark.parametrize("run", [*TASKS_IN_RUNS])
def test_a_checkpoint_is_loaded_otherwise_than_by_copying(runs, run):
    loaded = load(runs[run])
    path = resolve(runs[run])
    config = read_config(path)
    torch.manual_seed(5)
    task = new_task(TaskContext(config.task, config.model, loaded.context.tokenizer, config.text_length, config.labels))
    load_into(task, load_weights(path))
    own, other = loaded.task.state_dict(), task.state_dict()
    assert list(own) == list(other)
    assert all(torch.equal(own[name], other[name]) for name in own)
    buffers, others = dict(loaded.task.named_buffers()), dict(task.named_buffers())
    assert buffers.keys() == others.keys()
    assert all(torch.equal(buffers[name], others[name]) for name in buffers)
    assert [p.requires_grad for p in loaded.task.parameters()] == [p.requires_grad for p in task.parameters()]


def test_the_compiler_is_imported_for_a_network_without_weights():
    program = """
import sys
from fiber_cli.checkpoints.unfilled import without_weights
from fiber_cli.model.config import MINI, DetectorConfig
from fiber_cli.model.detector.detector import Detector
from fiber_cli.model.fusion import FusedEncoder
import dataclasses
positions = dataclasses.replace(MINI, image=dataclasses.replace(MINI.image, position_embedding=True))
with without_weights():
    FusedEncoder(positions), Detector(MINI, DetectorConfig())
print([name for name in ("torch._dynamo", "sympy", "torchvision", "timm") if name in sys.modules])
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
