"""What no pass reads of a published file, and what of it is kept."""

import torch

from fiber_cli.checkpoints.published.unread import KEPT_FILE, differing, narrow_types, restore_kept, write_kept


def test_what_would_be_written_alike_is_kept_or_something_else_is_lost():
    state = {"same": torch.ones(2), "other": torch.ones(2), "wide": torch.ones(2), "long": torch.ones(3)}
    back = {"same": torch.ones(2), "other": torch.zeros(2), "wide": torch.ones(2).double(), "long": torch.ones(2)}
    kept = differing(state | {"read": torch.ones(1)}, back, [*state, "absent"])
    assert kept.keys() == {"other", "wide", "long"}


def test_types_of_weights_are_forgotten(tmp_path):
    state = {"half": torch.ones(2).half(), "brain": torch.ones(2).bfloat16(), "full": torch.ones(2)}
    types = narrow_types(state, ["half", "brain", "full", "absent"])
    assert types == {"half": "float16", "brain": "bfloat16"}
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    write_kept(tmp_path, weights, {"pooler": torch.full((2,), 7.0)}, types)
    back = {name: torch.ones(2) for name in state}
    assert restore_kept(tmp_path, weights, back)
    assert {name: value.dtype for name, value in back.items()} == {
        "half": torch.float16,
        "brain": torch.bfloat16,
        "full": torch.float32,
        "pooler": torch.float32,
    }
    weights.write_bytes(b"others")
    assert not restore_kept(tmp_path, weights, back)


def test_an_empty_file_is_written(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    write_kept(tmp_path, weights, {}, {})
    assert not (tmp_path / KEPT_FILE).exists()
    assert not restore_kept(tmp_path, weights, {})
