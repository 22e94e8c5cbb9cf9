"""Runs below a folder, and the one of them that a command takes: of those that can do what is asked the newest that was
trained on the data in question. Of the checkpoints that ship with the package, which are never taken unasked, the one
that can."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from fiber_cli.checkpoints import shipped
from fiber_cli.checkpoints.config import CONFIG_FILE, CheckpointConfig, read_config
from fiber_cli.checkpoints.directory import holds_checkpoints, resolve
from fiber_cli.checkpoints.run_files import CHECKPOINTS, LATEST
from fiber_cli.checkpoints.trained_on import BUILT_IN, DRAWN_SCENES, Data, Seen, all_seen, data_of, trained_on
from fiber_cli.checkpoints.weights_header import check_weights
from fiber_cli.data.category_names import plain_name
from fiber_cli.data.json_lists import read_json_lists
from fiber_cli.data.source import CategorySource, PhraseSource
from fiber_cli.data.sources import open_source, source_format
from fiber_cli.data.sources.coco import CocoSettings
from fiber_cli.errors import UserError, first_names
from fiber_cli.settings import SourceSettings
from fiber_cli.tasks import declared
from fiber_cli.tasks.abilities import Ability

#: Where runs are, below the current folder.
RUNS = Path("runs")
#: What a detector is asked to find: category names, the phrases of a sentence, the one thing an expression fits.
Texts = Literal["names", "phrases", "expressions"]


@dataclass(frozen=True)
class Run:
    """A run with a checkpoint, or a shipped checkpoint. config: of the checkpoint that is loaded. data: what it was
    trained on, empty where that is not known, as of converted ones. saved: when its latest checkpoint was written, in
    seconds since 1970; of shipped ones 0."""

    folder: Path
    config: CheckpointConfig
    data: tuple[Data, ...]
    saved: float


@dataclass(frozen=True)
class Wanted:
    """What a run is to do. what: in words. option: names a checkpoint instead. latest: whether its latest checkpoint is
    loaded, not its best. runs: the folder that it is looked for in.

    tasks: those that can; ability: what is needed of their settings. dataset, sources: the data's name and what a task
    reads of it, which raises UserError. labels: category names to find; texts: what a detector is asked to find.
    """

    what: str
    tasks: tuple[str, ...]
    ability: type[Ability] | None = None
    dataset: str = ""
    sources: Callable[[str], Sequence[SourceSettings]] | None = None
    labels: frozenset[str] = frozenset()
    texts: frozenset[Texts] = frozenset()
    option: str = "--checkpoint"
    latest: bool = False
    runs: Path = RUNS


class Chosen(NamedTuple):
    """A run and why it is this one, in words."""

    run: Run
    reason: str


@dataclass(frozen=True)
class _Candidate:
    """A run that can do what is wanted. asked: the data; known: how many of the labels it was trained to find; seen:
    how it is known that it was trained on the data; suits: whether its task is to find such texts; alike: whether it
    has seen drawn scenes where the data is drawn, and files where it is files; is_general: whether it is pre-trained,
    where that counts."""

    run: Run
    asked: tuple[Data, ...]
    known: int
    seen: Seen
    suits: bool
    alike: bool
    is_general: bool

    @property
    def rank(self) -> tuple[float, ...]:
        """The best has the highest."""
        is_at_that_place = self.seen >= Seen.BY_FOLDER
        of_task = (self.known, self.seen > Seen.NOT, self.suits)
        return *of_task, is_at_that_place, self.alike, self.is_general, self.run.saved


@dataclass(frozen=True)
class _Looked:
    """Of runs those that can do what is wanted; why others cannot, and which are damaged, in words; problems: of the
    data."""

    candidates: list[_Candidate]
    misfits: list[str]
    unreadable: list[str]
    problems: list[UserError]


def can(config: CheckpointConfig, ability: type[Ability]) -> bool:
    """Whether a checkpoint has an ability: its task has, and its settings do not switch it off."""
    return ability in declared(config.task.name).abilities and ability not in config.task.switched_off


def choose_run(wanted: Wanted, folder: Path | None = None) -> Chosen:
    """The run below `folder`, by default `wanted.runs`, that does best what is wanted.

    Before newer ones come those whose categories have more of the labels, then those trained on the data, then those of
    a task for such texts, then those trained on the data at that place before those trained on data of that name; for
    data or labels that no run has seen those that have seen files, not drawn scenes, and pre-trained ones before those
    that learned other things. Raises UserError that says of every run why it does not fit.
    """
    folder = folder or wanted.runs
    looked = _look_at(*_runs_below(folder, latest=wanted.latest), wanted)
    if not looked.candidates and looked.problems:
        raise looked.problems[0]  # the data cannot be read, whichever run is asked
    if not looked.candidates:
        raise _none_fits(wanted, folder, [*looked.misfits, *looked.unreadable])
    best = max(looked.candidates, key=_rank)
    reason = _reason(best, looked.candidates, wanted)
    if looked.unreadable:
        reason += f"; left out: {first_names(looked.unreadable)}"
    return Chosen(best.run, reason)


def choose_shipped(wanted: Wanted) -> Path:
    """The checkpoint that ships with the package and does best what is wanted, as `choose_run` has it. Raises UserError
    that lists what there is where none can, or where several can and nothing tells them apart."""
    looked = _look_at(*_shipped_runs(), wanted)
    if not looked.candidates and looked.problems:
        raise looked.problems[0]
    best = _best_shipped(looked, wanted)
    if not best:
        shipped.refuse_none()
        heading = f"no shipped checkpoint is for {wanted.what}; name another one with {wanted.option}. There are:"
        raise UserError(heading, *looked.misfits, *looked.unreadable)
    if len(best) > 1:
        able = ", ".join(map(shipped.label, best))
        raise UserError(f"{shipped.BUILTIN}: for {wanted.what} there are {able}; name one of them with {wanted.option}")
    return best[0]


def shipped_with(ability: type[Ability]) -> list[str]:
    """The names of the shipped checkpoints that have an ability."""
    runs, _ = _shipped_runs()
    return [shipped.label(run.folder) for run in runs if can(run.config, ability)]


def _best_shipped(looked: _Looked, wanted: Wanted) -> list[Path]:
    """The shipped checkpoints that are best, of which none is newer. Of several candidates those come first whose task
    can read the data."""
    candidates = looked.candidates
    if len(candidates) > 1:
        candidates = [each for each in candidates if _reads(each.run, wanted)] or candidates
    highest = max(map(_rank, candidates), default=())
    return [candidate.run.folder for candidate in candidates if candidate.rank == highest]


def _reads(run: Run, wanted: Wanted) -> bool:
    """Whether the data have the form that a run's task reads: the name of a file does not always tell."""
    sources = [] if wanted.sources is None else wanted.sources(run.config.task.name)
    try:
        for source in sources:
            open_source(source)
    except UserError:
        return False
    return True


def _shipped_runs() -> tuple[list[Run], list[str]]:
    """The shipped checkpoints, and what is wrong with those that cannot be loaded."""
    runs = []
    unreadable = []
    for name in shipped.names():
        path = shipped.directory_of(name)
        try:
            runs.append(Run(path, _checked_config(path), (DRAWN_SCENES,), 0.0))
        except UserError as error:
            unreadable.append(error.message)
    return runs, unreadable


def _look_at(runs: Sequence[Run], unreadable: Sequence[str], wanted: Wanted) -> _Looked:
    """What each of the runs is to what is wanted, in their order; unreadable: others, in words."""
    looked = _Looked([], [], list(unreadable), [])
    known_names: dict[str, frozenset[str]] = {}
    for run in runs:
        name = shipped.label(run.folder)
        reason = _misfit(run, wanted)
        if reason is not None:
            kind = "checkpoint" if shipped.is_shipped(run.folder) else "run"
            looked.misfits.append(f"{name} is a {kind} of {reason}")
            continue
        try:
            looked.candidates.append(_candidate(run, wanted, known_names))
        except UserError as error:
            looked.problems.append(error)
            looked.unreadable.append(f"{name} ({error.message})")
    return looked


def _rank(candidate: _Candidate) -> tuple[float, ...]:
    return candidate.rank


def _runs_below(folder: Path, *, latest: bool) -> tuple[list[Run], list[str]]:
    """The runs, newest first, and what is wrong with those whose checkpoint cannot be loaded."""
    runs = []
    unreadable = []
    for checkpoints in sorted(folder.glob(f"*/{CHECKPOINTS}")):
        try:
            if holds_checkpoints(checkpoints):
                runs.append(_run(checkpoints, latest=latest))
        except (UserError, OSError) as error:
            unreadable.append(str(error))
    runs.sort(key=_saved, reverse=True)
    return runs, unreadable


def _run(checkpoints: Path, *, latest: bool) -> Run:
    """The run of a checkpoints folder. Raises UserError where what is loaded of it is damaged, as far as that shows
    without reading the weights."""
    path = resolve(checkpoints, latest=latest)
    config = _checked_config(path)
    pointer = checkpoints / LATEST
    written = pointer if pointer.is_file() else path / CONFIG_FILE
    return Run(checkpoints.parent, config, trained_on(checkpoints.parent), written.stat().st_mtime)


def _checked_config(checkpoint: Path) -> CheckpointConfig:
    """config.json of a checkpoint. Raises UserError where something of it is damaged, as far as that shows without
    reading the weights."""
    config = read_config(checkpoint)
    _check_tokenizer(checkpoint / "tokenizer")
    check_weights(checkpoint)
    return config


def _check_tokenizer(folder: Path) -> None:
    """Raises UserError where a folder does not have the files of a tokenizer."""
    for files in (("tokenizer.json",), ("vocab.json", "merges.txt")):
        if all((folder / name).is_file() for name in files):
            return
    raise UserError(f"{folder} has no tokenizer.json, nor vocab.json and merges.txt; copy the whole checkpoint again")


def _saved(run: Run) -> float:
    return run.saved


def _misfit(run: Run, wanted: Wanted) -> str | None:
    """Why a run cannot do what is wanted: what it is of."""
    task = run.config.task.name
    if task not in wanted.tasks:
        return task
    if wanted.ability is not None and not can(run.config, wanted.ability):
        return f"{task} without {wanted.ability.needs}"
    return None


def _candidate(run: Run, wanted: Wanted, known_names: dict[str, frozenset[str]]) -> _Candidate:
    """known_names: of the categories of data that were read already."""
    task = run.config.task.name
    sources = [] if wanted.sources is None else wanted.sources(task)
    data = tuple(map(data_of, sources))
    seen = all_seen(data, run.data)
    if seen and any(_is_of_other_names(source, run, known_names) for source in sources):
        seen = Seen.NOT
    known = len(wanted.labels & _labels_of(run))
    is_pretrained = declared(task).verb == "pretrain"
    asked = wanted.texts.union(*map(_texts_of, sources))
    # What it learned besides is as good as what was asked of a run that has learned many things.
    suits = is_pretrained or not asked or bool(asked & _texts_of_task(task))
    unfamiliar = bool(sources or wanted.labels) and not (seen or known)
    alike = not sources or all(map(_is_drawn, data)) == _is_of_scenes(run)
    return _Candidate(run, data, known, seen, suits, alike, is_general=unfamiliar and is_pretrained)


def _is_of_other_names(source: SourceSettings, run: Run, known_names: dict[str, frozenset[str]]) -> bool:
    """Whether none of the categories of a source is one that the run learned; False where either is not known."""
    labels = _labels_of(run)
    if not labels or not issubclass(source_format(source.kind).source, CategorySource):
        return False
    key = repr(source)
    if key not in known_names:
        known_names[key] = _names_in(source.json) if isinstance(source, CocoSettings) else _names_of(source)
    names = known_names[key]
    return bool(names) and names.isdisjoint(labels)


def _names_of(source: SourceSettings) -> frozenset[str]:
    """The category names of data, as `plain_name` has them; none where they have none or cannot be read, which is told
    when they are evaluated."""
    try:
        opened = open_source(source)
    except UserError:
        return frozenset()
    return frozenset(map(plain_name, opened.names)) if isinstance(opened, CategorySource) else frozenset()


def _names_in(file: str) -> frozenset[str]:
    """The same of a file in COCO's form, whose pictures are not looked for."""
    try:
        categories = read_json_lists(file, "a detection JSON in COCO's form")["categories"]
        return frozenset(plain_name(category["name"]) for category in categories)
    except (UserError, KeyError, TypeError, AttributeError):
        return frozenset()


def _is_drawn(data: Data) -> bool:
    return data.name == BUILT_IN


def _is_of_scenes(run: Run) -> bool:
    """Whether it has seen nothing but built-in scenes; what is not known, as of converted runs, was not such."""
    return bool(run.data) and all(map(_is_drawn, run.data))


def _labels_of(run: Run) -> frozenset[str]:
    return frozenset(map(plain_name, run.config.labels or ()))


def _texts_of(source: SourceSettings) -> frozenset[Texts]:
    """What a detector is asked on data; nothing where it is for other tasks."""
    reader = source_format(source.kind).source
    texts: set[Texts] = set()
    if issubclass(reader, CategorySource):
        texts.add("names")
    if issubclass(reader, PhraseSource):
        refers = source.arguments().get("refers", reader.refers)
        if refers is not True:
            texts.add("phrases")
        if refers is not False:
            texts.add("expressions")
    return frozenset(texts)


def _texts_of_task(task: str) -> frozenset[Texts]:
    """What a task finds, as its scenes have it."""
    texts: frozenset[Texts] = frozenset()
    for scenes in declared(task).scenes:
        texts |= _texts_of(source_format(scenes["kind"]).settings(**scenes))
    return texts


def _reason(best: _Candidate, candidates: Sequence[_Candidate], wanted: Wanted) -> str:
    """Why it is the best: what it has seen, or that none has."""
    if best.seen:
        reason = f"the newest run for {wanted.what} that was trained on {_in_words(best, wanted)}"
    elif best.known:
        reason = f"the newest run trained on {best.known} of these {len(wanted.labels)} names"
    elif wanted.sources is not None:
        kind = "pre-trained run" if best.is_general else "run"
        reason = f"the newest {kind} for {wanted.what}; none was trained on {wanted.dataset}"
    else:
        kind = "pre-trained run" if best.is_general else "run"
        reason = f"the newest {kind} for {wanted.what}"
    newer = [str(other.run.folder) for other in candidates if other.run.saved > best.run.saved]
    if newer:
        reason += f"; newer, but less fit: {first_names(newer)}"
    return reason


def _in_words(best: _Candidate, wanted: Wanted) -> str:
    """What it was trained on, as far as that is known."""
    if best.seen == Seen.BY_FILE:
        return wanted.dataset
    if best.seen == Seen.BY_FOLDER:
        return f"files in {first_names(sorted({data.folder for data in best.asked}))}"
    names = {" ".join(sorted(data.name)) for data in best.asked}
    return f"data named {first_names(sorted(names))}"


def _none_fits(wanted: Wanted, folder: Path, looked_at: Sequence[str]) -> UserError:
    offers = _offers(wanted)
    if not looked_at:
        tasks = " or ".join(wanted.tasks)
        none = f"no run of task {tasks} lies below {folder}/"
        return UserError(", ".join([f"{none}: name one with {wanted.option}", *offers]))
    heading = f"no run below {folder}/ is for {wanted.what}; name a checkpoint with {wanted.option}. Looked at:"
    return UserError(heading, *looked_at, *offers)


def _offers(wanted: Wanted) -> list[str]:
    """A line on the shipped checkpoints that can do what is wanted, which nothing takes unasked; none where there is
    none."""
    best = _best_shipped(_look_at(*_shipped_runs(), wanted), wanted)
    if not best:
        return []
    names = " or ".join(map(shipped.label, best))
    if len(best) == 1:
        names = shipped.BUILTIN
    return [f"or try {wanted.option} {names}, trained on drawn scenes only (`fiber scenes` writes some)"]
