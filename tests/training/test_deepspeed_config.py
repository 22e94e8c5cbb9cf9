"""A recipe's `runtime` section as DeepSpeed's configuration."""

import pytest
import torch
from good_recipe import good

from fiber_cli.training.deepspeed_config import OVERLAPPED, deepspeed_config


def test_defaults_ask_deepspeed_for_nothing_more():
    config = deepspeed_config(good(), 2)
    assert config["train_micro_batch_size_per_gpu"] == 8
    assert config["gradient_accumulation_steps"] == 2
    assert config["zero_optimization"] == {"stage": 0}
    assert config["gradient_clipping"] == 0.0
    assert not {"optimizer", "scheduler", "fp16", "bf16", "torch_autocast"} & config.keys()


def test_settings_reach_their_keys_and_what_is_passed_on_lies_over_them():
    recipe = good(
        "runtime.zero_stage=2",
        "runtime.offload=cpu",
        "runtime.precision=bf16",
        "runtime.clip=1",
        "deepspeed.zero_optimization.reduce_bucket_size=5e8",
        "deepspeed.flops_profiler={enabled: true}",
    )
    config = deepspeed_config(recipe, 1)
    zero = config["zero_optimization"]
    assert zero.pop("offload_optimizer") == {"device": "cpu"}
    assert zero == {"stage": 2} | OVERLAPPED | {"reduce_bucket_size": 5e8}
    assert config["torch_autocast"] == {"enabled": True, "dtype": "bfloat16"}
    assert config["gradient_clipping"] == 1.0
    assert config["flops_profiler"] == {"enabled": True}
    assert config["zero_force_ds_cpu_optimizer"] is False


@pytest.mark.parametrize(("device", "expected"), [("cpu", False), ("cuda", True)])
def test_auto_is_settled_by_the_device_of_the_training(monkeypatch, device, expected):
    monkeypatch.setattr("fiber_cli.training.deepspeed_config.device", lambda: torch.device(device))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    config = deepspeed_config(good("runtime.precision=auto"), 1)
    assert ("torch_autocast" in config) is expected
    assert config.get("torch_autocast", {}).get("dtype") == ("bfloat16" if expected else None)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", None), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_deepspeed_reads_its_config_as_meant(precision, dtype):
    from deepspeed.runtime.config import DeepSpeedConfig

    recipe = good(f"runtime.precision={precision}", "runtime.zero_stage=1", "runtime.clip=0.5")
    read = DeepSpeedConfig(deepspeed_config(recipe, 1))
    assert (read.train_batch_size, read.gradient_accumulation_steps) == (32, 4)
    assert read.zero_optimization_stage == 1
    assert read.gradient_clipping == 0.5
    assert not read.bfloat16_config.enabled
    assert not read.float16_config.enabled
    assert read.torch_autocast_enabled is (precision != "fp32")
    assert read.torch_autocast_dtype == dtype


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_gradients_are_sent_when_the_backward_pass_has_ended(stage):
    """Under ZeRO 3 DeepSpeed overlaps by itself; without ZeRO it cannot."""
    zero = deepspeed_config(good(f"runtime.zero_stage={stage}"), 2)["zero_optimization"]
    assert zero.get("overlap_comm", False) is (stage in (1, 2))
    off = deepspeed_config(good(f"runtime.zero_stage={stage}", "runtime.overlap=false"), 2)["zero_optimization"]
    assert off == {"stage": stage}
