"""A recipe's `runtime` section as DeepSpeed's configuration."""

from typing import Any

from fiber_cli.config.recipe import Recipe
from fiber_cli.distributed.device import device
from fiber_cli.model.precision import settled

#: Precision of a recipe → the type that autocast computes in.
AUTOCAST_NAMES = {"bf16": "bfloat16", "fp16": "float16"}
#: ZeRO 1 and 2 send a bucket of gradients while the next one is computed. Elements: of float32 100 MB each, of which
#: last one, for which nothing is left to compute, is short.
OVERLAPPED = {"overlap_comm": True, "reduce_bucket_size": 25_000_000, "allgather_bucket_size": 100_000_000}


def deepspeed_config(recipe: Recipe, world: int) -> dict[str, Any]:
    """DeepSpeed's configuration on `world` ranks, for a torch AdamW and a schedule that the loop drives.

    bf16 and fp16 compute the task under DeepSpeed's autocast, which leaves the parameters float32 at every
    ZeRO stage.
    """
    runtime = recipe.runtime
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": runtime.micro_batch,
        "gradient_accumulation_steps": runtime.micro_steps(world),
        "zero_optimization": {"stage": runtime.zero_stage},
        "gradient_clipping": runtime.clip or 0.0,
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }
    if runtime.zero_stage in (1, 2) and runtime.overlap:
        config["zero_optimization"] |= OVERLAPPED
    if runtime.offload == "cpu":
        config["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}
        config["zero_force_ds_cpu_optimizer"] = False  # DeepSpeed's own CPU Adam wants a compiler
    precision = settled(runtime.precision, device())
    if precision != "fp32":
        config["torch_autocast"] = {"enabled": True, "dtype": AUTOCAST_NAMES[precision]}
    return _merged(config, recipe.deepspeed)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with the changes put over it, mappings inside them too."""
    merged = base | changes
    for key in base.keys() & changes.keys():
        if isinstance(base[key], dict) and isinstance(changes[key], dict):
            merged[key] = _merged(base[key], changes[key])
    return merged
