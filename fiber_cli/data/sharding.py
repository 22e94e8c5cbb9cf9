"""A source as WebDataset shards, by several processes: the same bytes by any number of them.

Each shard is written under a temporary name, read again, compared with what was to be in it, and then takes its name;
the file SET_FILE beside them says which are finished. A command that was ended goes on behind the last of these.
"""

import hashlib
import io
import multiprocessing
import os
import tarfile
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from fiber_cli.data.identity import source_facts
from fiber_cli.data.packing import LABEL_MAP, check_packable, label_map, pack, shard_kind
from fiber_cli.data.shard_files import Blocks, LocalShard
from fiber_cli.data.shard_set import SET_FILE, ShardFile, ShardSet, read_shard_set
from fiber_cli.data.source import ImageSource, Source, sample_id
from fiber_cli.data.tar import members
from fiber_cli.data.worker_process import end_with_parent
from fiber_cli.errors import UserError
from fiber_cli.outputs import Outputs, Pending, sha256_of
from fiber_cli.text_files import dump_json

_VERSION = 1


class Sharded(NamedTuple):
    """kind: of the entry that reads the shards; entry: the settings of that entry; kept: how many of the shards were
    there already; bad: (sample, reason) of those whose picture or text cannot be read, packed all the same."""

    kind: str
    entry: Mapping[str, str]
    samples: int
    shards: int
    kept: int
    bad: list[tuple[str, str]]


def shard_source(source: Source, folder: Path, outputs: Outputs, *, per_shard: int, workers: int) -> Sharded:
    """Writes the samples of a source into a folder, `per_shard` in each shard but the last, in their order.

    Raises `UserError` for a source that shards do not hold, and for a folder with shards of other data.
    """
    packable = check_packable(source)
    count = len(source)
    facts = source_facts("source", source) | {"samples a shard": f"{per_shard:,}", "version": str(_VERSION)}
    jobs = _jobs(count, per_shard)
    set_file = folder / SET_FILE
    earlier = _earlier(set_file, facts, jobs)
    _remove_half_written(folder)
    finished = {name: shard for name, shard in earlier.items() if _is_as_written(folder / name, shard)}
    kept = len(finished)
    entry = {"kind": shard_kind(packable), "shards": str(folder)}
    names = label_map(packable)
    if names:
        outputs.write(folder / LABEL_MAP, dump_json(names, indent=1) + "\n")
        entry["label_map"] = str(folder / LABEL_MAP)
    missing = [job for job in jobs if job.name not in finished]
    for name, shard in _written(packable, folder, missing, outputs, workers, own=earlier.keys()):
        finished[name] = shard
        is_last = len(finished) == len(jobs)
        if not is_last:
            _write_set(set_file, facts, count, finished, outputs, complete=False)
    _write_set(set_file, facts, count, finished, outputs, complete=True)
    bad = [each for name in sorted(finished) for each in finished[name].bad]
    return Sharded(shard_kind(packable), entry, count, len(jobs), kept, bad)


class _Job(NamedTuple):
    """A shard to write: its name, and the numbers of its samples from `first` up to `end`."""

    name: str
    first: int
    end: int


def _jobs(count: int, per_shard: int) -> list[_Job]:
    starts = range(0, count, per_shard)
    digits = max(5, len(str(len(starts))))
    return [_Job(f"{n:0{digits}d}.tar", first, min(count, first + per_shard)) for n, first in enumerate(starts)]


def _earlier(set_file: Path, facts: Mapping[str, str], jobs: list[_Job]) -> Mapping[str, ShardFile]:
    """The shards that an earlier command finished; `UserError` for a folder with other shards."""
    wanted = {job.name for job in jobs}
    present = [path.name for path in sorted(set_file.parent.glob("[!.]*.tar"))]
    foreign = [name for name in present if name not in wanted]
    if foreign:
        raise UserError(f"{set_file.parent}: holds {foreign[0]}, which is none of these shards; name another folder")
    if not set_file.is_file():
        return {}
    earlier = read_shard_set(set_file)
    if dict(earlier.of) != dict(facts):
        raise UserError(
            f"{set_file.parent}: holds shards of other data, or of another number of samples; name another folder"
        )
    return earlier.shards


def _remove_half_written(folder: Path) -> None:
    """What commands that were killed had begun; of one that still runs its process is there."""
    for path in folder.glob(".fiber-*.tmp.tar"):
        process = path.name.split("-")[1]
        if process.isdecimal() and not _is_running(int(process)):
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name == "nt":
        return True  # where to ask would be to end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _is_as_written(path: Path, shard: ShardFile) -> bool:
    return path.is_file() and path.stat().st_size == shard.bytes and sha256_of(path) == shard.sha256


def _write_set(
    file: Path,
    facts: Mapping[str, str],
    count: int,
    shards: Mapping[str, ShardFile],
    outputs: Outputs,
    *,
    complete: bool,
) -> None:
    ordered = {name: shards[name] for name in sorted(shards)}
    outputs.write(file, ShardSet(facts, count, complete, ordered).to_json(), own=True)


def _written(
    source: ImageSource, folder: Path, jobs: list[_Job], outputs: Outputs, workers: int, *, own: Collection[str]
) -> Iterator[tuple[str, ShardFile]]:
    """Writes the shards, and gives each when it has its name; at most `workers` are begun and not finished. own: those
    that an earlier command wrote, and that have changed since."""
    progress = tqdm(total=len(jobs), desc="writing shards", delay=2, disable=None)
    if workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            with outputs.writing(folder / job.name, own=job.name in own) as temporary:
                shard = write_shard(source, job.first, job.end, temporary)
            progress.update()
            yield job.name, shard
        return
    waiting = list(reversed(jobs))
    running: dict[Future[ShardFile], tuple[_Job, Pending]] = {}
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(workers, context, _begin_worker, (source,)))
        stack.callback(_drop, running)
        stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.pop()
                pending = outputs.begin(folder / job.name, own=job.name in own)
                running[pool.submit(_work, job.first, job.end, pending.temporary)] = job, pending
            future = next(as_completed(running))
            shard = future.result()
            job, pending = running[future]
            outputs.publish(pending)
            del running[future]
            progress.update()
            yield job.name, shard


def _drop(running: Mapping[Future[ShardFile], tuple[_Job, Pending]]) -> None:
    """Take away what is half written."""
    for _, pending in running.values():
        pending.drop()


#: The source of a worker process.
_SOURCE: list[ImageSource] = []


def _begin_worker(source: ImageSource) -> None:
    _SOURCE.append(source)
    end_with_parent()


def _work(first: int, end: int, path: Path) -> ShardFile:
    return write_shard(_SOURCE[0], first, end, path)


def write_shard(source: ImageSource, first: int, end: int, path: Path) -> ShardFile:
    """Writes samples `first` up to `end` as a tar, and reads it again; `UserError` where it does not hold what was
    written. Nothing in it tells when or by whom it was written."""
    bad = []
    written = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for i in range(first, end):
            packed = pack(source, i)
            if packed.bad is not None:
                bad.append((sample_id(source, i), packed.bad))
            for ending, content in packed.members:
                member = tarfile.TarInfo(f"{i:09d}{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
                written.append((member.name, _digest(content)))
    if written != list(_contents(path)):
        raise UserError(f"{path.parent}: a shard read back is not what was written; check the disk and run this again")
    return ShardFile(end - first, path.stat().st_size, sha256_of(path), tuple(bad))


def _contents(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and digest of each member."""
    shard = LocalShard(path)
    try:
        blocks = Blocks(shard)
        for member in members(blocks, shard.size()):
            yield member.name, _digest(blocks.read(member.size, member.offset))
    finally:
        shard.close()


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
