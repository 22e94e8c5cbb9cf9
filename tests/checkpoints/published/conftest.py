"""Published key lists, read once."""

import json

import pytest
import torch


@pytest.fixture(scope="session")
def fine_keys(shared):
    """Keys, shapes, types and sizes of the published base model of the fine stage (v2)."""
    return json.loads((shared / "golden" / "fine_base_keys.json").read_text())


@pytest.fixture(scope="session")
def fine_dtypes(fine_keys):
    """Key → whole numbers or not."""
    dtypes = {}
    for key in fine_keys["keys"]:
        whole = "int64" in fine_keys["dtypes"].get(key, "")
        dtypes[key] = torch.int64 if whole else torch.float16
    return dtypes
