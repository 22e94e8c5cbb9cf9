"""What the `deepspeed` section of a recipe may hold: the names that DeepSpeed 0.19.8 reads, and what their values are.

DeepSpeed takes no notice of most names that it does not know. A test holds the table against the installed version.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fiber_cli.config.strict import unknown

#: A section, or the kinds of a single value, of which it must be one: bool, int, float, str, list, mapping, null, and
#: quoted values. Numbers are finite and not negative.
Kind = str | dict[str, Any]

_LARGEST = 1e30
#: What is known and not taken, with the reason.
_REFUSED = {
    "flops_profiler.output_file": "DeepSpeed writes over whatever file is there; leave it out, the profile is printed",
}
_OFFLOAD_OPTIMIZER: Kind = {
    "buffer_count": "int",
    "cpuadam_cores_perc": "float",
    "device": "'none' | 'cpu' | 'nvme'",
    "fast_init": "bool",
    "nvme_path": "str | null",
    "pin_memory": "bool",
    "pipeline_read": "bool",
    "pipeline_write": "bool",
    "ratio": "float",
    "super_offload": "bool",
}
_OFFLOAD_PARAM: Kind = {
    "buffer_count": "int",
    "buffer_size": "int",
    "device": "'none' | 'cpu' | 'nvme'",
    "max_in_cpu": "int",
    "nvme_path": "str | null",
    "pin_memory": "bool",
}
_ZENFLOW: Kind = {
    "auto_ratio": "float",
    "full_warm_up_rounds": "int",
    "offload": "bool",
    "overlap_step": "bool",
    "pt_reserved_cores_perc": "float",
    "select_interval": "str | int",
    "select_strategy": "str",
    "steps_per_epoch": "int | null",
    "topk_ratio": "float",
    "update_interval": "str | int",
}
_ZERO: Kind = {
    "allgather_bucket_size": "int",
    "allgather_partitions": "bool",
    "compute_grad_norm": "bool",
    "contiguous_gradients": "bool",
    "cpu_offload": "bool | null",
    "cpu_offload_param": "bool | null",
    "cpu_offload_use_pin_memory": "bool | null",
    "elastic_checkpoint": "bool",
    "enable_sanity_checks": "bool",
    "ignore_unused_parameters": "bool",
    "leaf_module": {"classes": "list", "name_suffixes": "list", "names": "list"},
    "legacy_stage1": "bool",
    "load_from_fp32_weights": "bool",
    "log_trace_cache_warnings": "bool",
    "memory_efficient_linear": "bool",
    "offload_optimizer": _OFFLOAD_OPTIMIZER,
    "offload_param": _OFFLOAD_PARAM,
    "overlap_comm": "bool | null",
    "override_module_apply": "bool",
    "parameter_alignment": "bool",
    "pipeline_loading_checkpoint": "bool",
    "reduce_bucket_size": "int",
    "reduce_scatter": "bool",
    "round_robin_gradients": "bool",
    "save_muon_momentum_buffer_in_memory": "bool",
    "stage": "0 | 1 | 2 | 3",
    "stage3_allgather_sequential": "bool",
    "stage3_gather_16bit_weights_on_model_save": "bool",
    "stage3_gather_fp16_weights_on_model_save": "bool",
    "stage3_max_live_parameters": "int",
    "stage3_max_reuse_distance": "int",
    "stage3_model_persistence_threshold": "int",
    "stage3_module_granularity_threshold": "int",
    "stage3_param_persistence_threshold": "int",
    "stage3_prefetch_bucket_size": "int",
    "stage3_use_all_reduce_for_fetch_params": "bool",
    "sub_group_size": "int",
    "use_multi_rank_bucket_allreduce": "bool",
    "zenflow": _ZENFLOW,
    "zero_hpz_partition_size": "int",
    "zero_quantized_gradients": "bool",
    "zero_quantized_nontrainable_weights": "bool",
    "zero_quantized_weights": "bool",
}
_COMPILE: Kind = {
    "autoep_non_moe": "bool",
    "debug_log": "bool",
    "deepcompile": "bool",
    "double_buffer": "bool",
    "free_activation": "bool",
    "free_activation_threshold": "int",
    "keep_all_input_tensors": "bool",
    "keep_int_input_tensors": "bool",
    "offload_activation": "bool",
    "offload_activation_pin_memory": "bool",
    "offload_opt_states": "bool",
    "offload_parameters": "bool",
    "passes": "list | null",
    "symmetric_memory": "bool",
    "sync_after_allgather": "bool",
    "sync_after_reduce": "bool",
    "sync_before_allgather": "bool",
    "sync_before_reduce": "bool",
}
_COMET: Kind = {
    "api_key": "str | null",
    "enabled": "bool",
    "experiment_key": "str | null",
    "experiment_name": "str | null",
    "mode": "str | null",
    "online": "bool | null",
    "project": "str | null",
    "samples_log_interval": "int",
    "workspace": "str | null",
}
_BOARD: Kind = {"enabled": "bool", "job_name": "str", "output_path": "str"}
_DTYPES = "'fp32' | 'fp16' | 'bf16' | null"

NAMES: dict[str, Kind] = {
    "activation_checkpointing": {
        "contiguous_memory_optimization": "bool",
        "cpu_checkpointing": "bool",
        "number_checkpoints": "int | null",
        "partition_activations": "bool",
        "profile": "bool",
        "synchronize_checkpoint_boundary": "bool",
    },
    "aio": {
        "block_size": "int",
        "intra_op_parallelism": "int",
        "overlap_events": "bool",
        "queue_depth": "int",
        "single_submit": "bool",
        "use_gds": "bool",
    },
    "checkpoint": {
        "parallel_write": {"pipeline_stage": "bool"},
        "tag_validation": "'Ignore' | 'Warn' | 'Fail' | 'IGNORE' | 'WARN' | 'FAIL'",
        "use_node_local_storage": "bool",
    },
    "comet": _COMET,
    "comms_logger": {"debug": "bool", "enabled": "bool", "prof_all": "bool", "prof_ops": "list", "verbose": "bool"},
    "communication_data_type": _DTYPES,
    "compile": _COMPILE,
    "csv_monitor": _BOARD,
    "data_types": {
        "buffer_dtype": _DTYPES,
        "grad_accum_dtype": _DTYPES,
        "keep_in_fp32_modules": "list | 'auto'",
        "param_dtype": _DTYPES,
    },
    "dataloader_drop_last": "bool",
    "disable_allgather": "bool",
    "disable_python_gc": "bool",
    "dump_state": "bool",
    "flops_profiler": {
        "detailed": "bool",
        "enabled": "bool",
        "module_depth": "int | -1",
        "output_file": "str | null",
        "profile_step": "int",
        "recompute_fwd_factor": "float",
        "top_modules": "int",
    },
    "gradient_allreduce_op": "'mean' | 'sum'",
    "gradient_clipping": "float",
    "gradient_predivide_factor": "float",
    "log_level": "str",
    "memory_breakdown": "bool",
    "prescale_gradients": "bool",
    "seq_parallel_communication_data_type": _DTYPES,
    "steps_per_print": "int | null",
    "tensorboard": _BOARD,
    "timers": {"throughput": {"enabled": "bool", "synchronized": "bool"}},
    "torch_autocast": {
        "dtype": "'bfloat16' | 'float16' | 'float32' | 'bf16' | 'fp16' | 'fp32'",
        "enabled": "bool",
        "lower_precision_safe_modules": "list",
    },
    "use_data_before_expert_parallelism": "bool",
    "wall_clock_breakdown": "bool",
    "wandb": {"enabled": "bool", "group": "str | null", "project": "str", "team": "str | null"},
    "zero_allow_untested_optimizer": "bool",
    "zero_force_ds_cpu_optimizer": "bool",
    "zero_optimization": _ZERO,
}


def problems(section: Mapping[str, Any], names: Mapping[str, Any] = NAMES, prefix: str = "") -> Iterator[str]:
    """What is wrong with the section: names that DeepSpeed does not have, with the nearest, and values of another
    kind."""
    for name, value in section.items():
        path = f"{prefix}{name}"
        if name not in names:
            yield unknown(f"key of {prefix.rstrip('.') or 'DeepSpeed'}", name, names)
            continue
        kind = names[name]
        if path in _REFUSED and value is not None:
            yield f"{path}: {_REFUSED[path]}"
        elif isinstance(kind, str):
            if not any(_is_of(value, each) for each in kind.split(" | ")):
                yield f"{path}: wanted {kind.replace(' | ', ' or ')}, got {value!r:.80}"
        elif isinstance(value, dict):
            yield from problems(value, kind, f"{path}.")
        else:
            yield f"{path}: wanted a mapping, got {value!r:.80}"


def _is_of(value: Any, kind: str) -> bool:
    match kind:
        case "null":
            return value is None
        case "bool" | "str" | "list" | "mapping":
            return type(value) is {"bool": bool, "str": str, "list": list, "mapping": dict}[kind]
        case "int":
            return _is_number(value) and value == int(value)
        case "float":
            return _is_number(value)
    return type(value) in (int, str) and repr(value) == kind


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < _LARGEST
