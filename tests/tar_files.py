"""Tar shards in WebDataset's form, written for a test."""

import io
import json
import tarfile

from image_files import jpeg


def write_tar(path, members, format=tarfile.PAX_FORMAT):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1.5 if format == tarfile.PAX_FORMAT else 1
            tar.addfile(info, io.BytesIO(content))
    return path


def shard_sample(key, caption="a text", colour=(9, 9, 9), **described):
    described = {"caption": caption, "width": 40, **described}
    return [
        (f"{key}.jpg", jpeg(colour)),
        (f"{key}.txt", caption.encode()),
        (f"{key}.json", json.dumps(described).encode()),
    ]
