"""What tells the content of files and sources from others, found without reading all of it."""

import hashlib
from pathlib import Path

from fiber_cli.data.exclude_files import exclude_files
from fiber_cli.data.object_source import ObjectSource
from fiber_cli.data.shards import ShardSource
from fiber_cli.data.source import Source
from fiber_cli.settings import paths_in

#: Bytes of a block, and how many blocks of a file are read; a smaller file is read whole.
BLOCK, BLOCKS = 65536, 32
#: How many ids of a source are read.
KEYS = 2000
_DIGITS = 12
#: Kinds of source whose boxes stand in many files, or in one that the settings do not name.
FILES_OF_LABELS = frozenset({"folder", "yolo", "voc"})


def file_identity(path: Path) -> str:
    """The size of a file and a digest of its beginning, its end and blocks between. Raises OSError."""
    digest = hashlib.blake2b()
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= BLOCK * BLOCKS:
            digest.update(file.read())
        else:
            for number in range(BLOCKS):
                file.seek((size - BLOCK) * number // (BLOCKS - 1))
                digest.update(file.read(BLOCK))
    return f"{size:,} bytes, digest {digest.hexdigest()[:_DIGITS]}"


def source_facts(name: str, source: Source) -> dict[str, str]:
    """What a source holds, each thing under a name that begins with `name`: the kind, the number of samples, a digest
    of ids, and each file of annotations, and of `exclude`, with a digest or each shard with its size; of the pictures
    nothing. Raises OSError."""
    facts = own_facts(name, source)
    if source.settings is not None:
        for path in map(Path, exclude_files(source.settings.exclude)):
            facts[f"{name}: the list {path.name} of excluded images"] = file_identity(path)
    return facts


def own_facts(name: str, source: Source) -> dict[str, str]:
    """Those of `source_facts` that are not of `exclude`."""
    count = len(source)
    digest = hashlib.blake2b()
    for i in range(0, count, max(1, count // KEYS)):
        digest.update(source.key(i).encode("utf-8", "surrogatepass") + b"\0")
    kind = type(source).__name__ if source.settings is None else source.settings.kind
    facts = {
        f"{name}: the kind": kind,
        f"{name}: the number of samples": f"{count:,}",
        f"{name}: the digest of the ids": digest.hexdigest()[:_DIGITS],
    }
    if isinstance(source, ShardSource):
        for shard, size in source.shard_sizes():
            facts[f"{name}: the size of shard {shard}"] = f"{size:,} bytes"
    else:
        for path in _files(source):
            facts[f"{name}: the file {path.name}"] = file_identity(path)
    if kind in FILES_OF_LABELS and isinstance(source, ObjectSource):
        facts[f"{name}: the digest of the boxes"] = source.boxes_digest()
    return facts


def _files(source: Source) -> list[Path]:
    """The files that the settings of a source name, folders not included."""
    if source.settings is None:
        return []
    files: list[Path] = []
    arguments = source.settings.arguments()
    for name in source.settings.path_names():
        files.extend(map(Path, paths_in(arguments.get(name))))
    return [path for path in files if path.is_file()]
