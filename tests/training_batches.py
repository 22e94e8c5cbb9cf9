"""Training data and batches for tests."""

import io
import itertools
import json
import tarfile

import numpy as np
import torch
from PIL import Image

from fiber_cli.data.loader import train_loader
from fiber_cli.data.mixing import StepSampler
from fiber_cli.data.readers import CaptionReader, collate
from fiber_cli.data.sources.karpathy import KarpathySource
from fiber_cli.data.sources.webdataset import WebDatasetSource


def train_batches(mixture, tokenizer, **changes):
    options = {"text_length": 12, "image_size": 16, "augment": "randaugment", "mlm_probability": 0.3}
    batches = {"global_batch": 8, "micro_batch": 8, "rank": 0, "world": 1, "start_step": 0, "total_steps": 6}
    workers = changes.pop("workers", 0)
    options |= {name: changes.pop(name) for name in options if name in changes}
    return train_loader(
        StepSampler(mixture, **batches | changes), CaptionReader(tokenizer, **options), workers, collate
    )


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        equal = torch.equal(a[name], b[name]) if torch.is_tensor(a[name]) else a[name] == b[name]
        assert equal, name


#: What stands behind the end of a text.
PADDING = {"ids": 1, "mask": False, "mlm_ids": 1, "mlm_labels": -100}


def widened(batch, width):
    """The batch with texts of so many columns."""
    wide = dict(batch)
    for name in PADDING.keys() & batch.keys():
        missing = width - batch[name].shape[1]
        wide[name] = torch.nn.functional.pad(batch[name], (0, missing), value=PADDING[name])
    return wide


def joined(batches):
    """Several micro-batches as one batch, whose texts are as wide as the widest of theirs."""
    width = max(batch["ids"].shape[1] for batch in batches)
    batches = [widened(batch, width) for batch in batches]
    columns = {name: [batch[name] for batch in batches] for name in batches[0]}
    join = {torch.Tensor: torch.cat, list: lambda column: list(itertools.chain(*column)), int: sum}
    return {name: join[type(column[0])](column) for name, column in columns.items()}


def folder_and_shards(tmp_path):
    """Real files: noise pictures in a folder with a Karpathy JSON, and in three shards; some are damaged."""
    rng = np.random.default_rng(0)
    entries = []
    (tmp_path / "images").mkdir()
    for i in range(14):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(buffer, "JPEG")
        content = buffer.getvalue()[: 300 if i in (3, 11) else None]
        (tmp_path / "images" / f"{i}.jpg").write_bytes(content)
        sentences = [{"raw": f"{'ab' * i} c"}, {"raw": "d"}]
        entries.append({"filename": f"{i}.jpg", "split": "train", "sentences": sentences})
    (tmp_path / "k.json").write_text(json.dumps({"images": entries}))
    for shard in range(3):
        with tarfile.open(tmp_path / f"{shard}.tar", "w") as tar:
            for i in range(5 * shard, min(5 * shard + 5, 14)):
                tar.add(tmp_path / "images" / f"{i}.jpg", f"{i}.jpg")
                info = tarfile.TarInfo(f"{i}.txt")
                info.size = 3
                tar.addfile(info, io.BytesIO(b"a b"))
    return [KarpathySource(tmp_path / "k.json", tmp_path / "images"), WebDatasetSource(f"{tmp_path}/*.tar")]
