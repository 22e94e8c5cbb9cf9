"""Fusion in the backbone against fusion on top, as METER stacks it, and none: parameters, operations, memory.

    python -m benchmarks.fusion_place                              # base at 384 with 40 tokens, from shapes alone
    python -m benchmarks.fusion_place --preset tiny --measure      # and a training step of each on this device

The first three columns are of fusion alone, what a pair of an image and a text takes beyond the two towers: parameters;
operations of a forward pass, 2 for a multiply-add; and what the forward pass keeps for the backward pass, float32, the
attention in its plain form, which fused kernels do not keep. They are counted without computing, so they are the same
on every machine. With --measure also the seconds of a forward and backward pass of a batch, and on a GPU its peak.
The paper (section 4): 26M parameters and 12.35 GFLOPs in the backbone, about 110M and 24.04 for METER; its own code
counts 9.78 for the first.
"""

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.coarse_step import count_operations
from benchmarks.common import hardware, open_gates, options, pick_device, timed, write
from fiber_cli.model.config import PRESETS, FiberConfig
from fiber_cli.model.fusion import Fused, FusedEncoder

PLACES: dict[str, dict[str, Any]] = {
    "no fusion": {"fusion_layers": 0},
    "in the backbone": {"fusion": "backbone"},
    "on top": {"fusion": "top"},
}


def fused_pass(encoder: FusedEncoder, pixels: Tensor, ids: Tensor) -> Fused:
    """From pixels (B, 3, H, W) and ids (B, L), all of them real tokens."""
    return encoder.fuse(encoder.image_stem(pixels), encoder.text_stem(ids, torch.ones_like(ids, dtype=torch.bool)))


def inputs(config: FiberConfig, batch: int, length: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Random pixels and tokens."""
    pixels = torch.randn(batch, 3, *config.image_size, device=device)
    return pixels, torch.randint(5, config.text.vocab, (batch, length), device=device)


def fusion_parameters(encoder: nn.Module) -> int:
    """Those that the towers alone do not have."""
    count = 0
    for name, parameter in encoder.named_parameters():
        if name.startswith("top.") or "cross" in name.split("."):
            count += parameter.numel()
    return count


def kept_bytes(encoder: FusedEncoder, pixels: Tensor, ids: Tensor) -> int:
    """What a forward pass in training keeps for the backward pass, weights apart."""
    of_weights = {parameter.untyped_storage()._cdata for parameter in encoder.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in of_weights:
            kept[storage._cdata] = tensor
        return tensor

    with sdpa_kernel(SDPBackend.MATH), saved_tensors_hooks(keep, lambda tensor: tensor):
        fused = fused_pass(encoder, pixels, ids)
    assert fused.text.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def costs(config: FiberConfig, length: int) -> dict[str, int]:
    """Of one pair, towers included, from shapes alone."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        encoder = FusedEncoder(config).train()
        pixels, ids = inputs(config, 1, length)
        return {
            "parameters": fusion_parameters(encoder),
            "operations": count_operations(lambda: fused_pass(encoder, pixels, ids)),
            "kept_bytes": kept_bytes(encoder, pixels, ids),
        }


def measure(config: FiberConfig, batch: int, length: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """Median seconds of a forward and backward pass, and on a GPU its peak in GiB."""
    torch.manual_seed(0)
    encoder = FusedEncoder(config).to(device).train()
    open_gates(encoder)
    pixels, ids = inputs(config, batch, length, device)

    def step() -> None:
        fused = fused_pass(encoder, pixels, ids)
        (fused.text.float().square().mean() + fused.pyramid[-1].float().square().mean()).backward()
        encoder.zero_grad(set_to_none=True)

    step()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = sorted(timed(step, device)[0] for _ in range(repeats))
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
    return {"seconds": seconds[repeats // 2], "peak_gib": peak}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--length", type=int, default=40, help="tokens of a text")
    parser.add_argument("--measure", action="store_true", help="also run a training step of each on this device")
    parser.add_argument("--batch", type=int, default=2, help="pairs of a measured step")
    parser.add_argument("--repeats", type=int, default=3, help="measured steps, after one that does not count")
    args = parser.parse_args()
    device = pick_device()
    places: dict[str, dict[str, Any]] = {}
    for name, changes in PLACES.items():
        config = dataclasses.replace(PRESETS[args.preset], **changes)
        places[name] = dict(costs(config, args.length))
        if args.measure:
            places[name] |= measure(config, args.batch, args.length, args.repeats, device)
    towers = places["no fusion"]
    report: dict[str, Any] = {"preset": args.preset, "length": args.length, "places": places}
    if args.measure:
        report |= {"hardware": hardware(device), "threads": torch.get_num_threads(), "batch": args.batch}
    print(f"{args.preset}, a pair of an image and {args.length} tokens; of fusion, beyond the towers alone:")
    print(f"{'':16} {'parameters':>14} {'operations':>16} {'kept for backward':>20}")
    for name, cost in places.items():
        cost["fusion_operations"] = cost["operations"] - towers["operations"]
        cost["fusion_kept_bytes"] = cost["kept_bytes"] - towers["kept_bytes"]
        measured = ""
        if args.measure:
            peak = "" if cost["peak_gib"] is None else f", peak {cost['peak_gib']:.2f} GiB"
            measured = f"   {cost['seconds']:.3f} s a step of {args.batch}{peak}"
        print(
            f"{name:16} {cost['parameters'] / 1e6:12.2f} M {cost['fusion_operations'] / 1e9:10.2f} GFLOP "
            f"{cost['fusion_kept_bytes'] / 2**20:16.1f} MiB{measured}"
        )
    write(report, args.json)


if __name__ == "__main__":
    main()
