"""The model card of a checkpoint on the hub: README.md, its metadata and what a reader wants to know, made from the
checkpoint and its run.

Its last line holds a digest of what stands above, so that a card that somebody has changed is known from one that fiber
wrote.
"""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml
from huggingface_hub import EvalResult, ModelCardData

import fiber_cli
from fiber_cli.characters import one_line
from fiber_cli.checkpoints.config import CheckpointConfig
from fiber_cli.checkpoints.hub_names import HubName
from fiber_cli.checkpoints.run_facts import Measured, RunFacts
from fiber_cli.checkpoints.run_files import hardware_of
from fiber_cli.checkpoints.runs import can
from fiber_cli.data.sources import FORMATS, source_format
from fiber_cli.errors import first_names
from fiber_cli.tasks import declared
from fiber_cli.tasks.abilities import Ability, Answering, Captioning, Detecting, Embedding, Matching

CARD = "README.md"
#: What the hub knows and counts checkpoints of fiber by.
LIBRARY = "fiber"
TAGS = (LIBRARY, "vision-language")
#: What the hub calls what a checkpoint can do; retrieval has no name there.
_PIPELINES: dict[type[Ability], str] = {
    Detecting: "zero-shot-object-detection",
    Answering: "visual-question-answering",
    Captioning: "image-to-text",
}
_MARK = re.compile(r"\n<!-- Written by `fiber push`; SHA-256 of what stands above: ([0-9a-f]{64}) -->\n\Z")
#: Labels that a card lists, and those of the example.
_MOST_LABELS, _EXAMPLE_LABELS = 100, 3


class CardFacts(NamedTuple):
    """name: where the checkpoint is pushed to; licence: as the hub calls it, None where none is named; parameters:
    numbers in the weights; has_words: whether the words of its training are with it."""

    name: HubName
    config: CheckpointConfig
    run: RunFacts
    licence: str | None
    parameters: int
    has_words: bool


def model_card(facts: CardFacts) -> str:
    """The text of README.md."""
    sections = [_about(facts), _usage(facts), _training(facts), _metrics(facts.run.measured), _rest(facts)]
    text = f"---\n{_metadata(facts)}\n---\n\n# {facts.name.repository}\n\n" + "\n".join(filter(None, sections))
    return f"{text}\n<!-- Written by `fiber push`; SHA-256 of what stands above: {_digest(text)} -->\n"


def is_unchanged(card: str) -> bool:
    """Whether a README.md is a card as `model_card` wrote it."""
    mark = _MARK.search(card)
    return mark is not None and mark[1] == _digest(card[: mark.start()])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _metadata(facts: CardFacts) -> str:
    """The block of YAML that the hub reads."""
    pipeline = None
    for ability, tag in _PIPELINES.items():
        if can(facts.config, ability):
            pipeline = tag
    base = None
    if isinstance(facts.run.start, HubName):
        base = facts.run.start.repository
    results = []
    for measured in facts.run.measured:
        for metric, value in measured.metrics.items():
            result = EvalResult(
                task_type=pipeline or "other",
                dataset_type=_slug(measured.dataset),
                dataset_name=measured.dataset,
                dataset_split=measured.split or None,
                metric_type=metric,
                metric_value=round(value, 4),
            )
            results.append(result)
    data = ModelCardData(
        library_name=LIBRARY,
        license=facts.licence,
        pipeline_tag=pipeline,
        tags=[*TAGS, facts.config.task.name],
        base_model=base,
        model_name=facts.name.repository.partition("/")[2],
        eval_results=results or None,
    )
    return data.to_yaml()


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "data"


def _about(facts: CardFacts) -> str:
    config = facts.config
    declaration = declared(config.task.name)
    height, width = config.model.image_size
    rows = {
        "task": f"`{declaration.name}`: {declaration.about}",
        "parameters": f"{facts.parameters:,}",
        "image size": f"{height} × {width}",
        "text length": f"{config.text_length} tokens",
        "licence": facts.licence or "not named: ask its author before using it",
    }
    if config.labels is not None:
        rows["labels"] = first_names(list(config.labels), _MOST_LABELS)
    return "A checkpoint of FIBER, two towers with fusion in the backbone, made with `fiber`.\n" + _table(rows)


def _usage(facts: CardFacts) -> str:
    """How it is used by the command line and from Python, as far as it can do something with pictures of one's own."""
    name = str(facts.name)
    prompt = _example(facts.config.labels or ("cat", "dog"))
    commands = [f"fiber eval DATASET --checkpoint {name}"]
    calls = []
    if can(facts.config, Detecting):
        commands.append(f'fiber detect picture.jpg "{prompt}" --out found --checkpoint {name}')
        calls.append(f'print(model.detect("picture.jpg", "{prompt}"))')
    if can(facts.config, Answering):
        commands.append(f'fiber answer picture.jpg "what is in the picture?" --checkpoint {name}')
        calls.append('print(model.answer("picture.jpg", "what is in the picture?"))')
    if can(facts.config, Captioning):
        commands.append(f"fiber caption picture.jpg --checkpoint {name}")
        calls.append('print(model.caption("picture.jpg"))')
    if can(facts.config, Embedding):
        commands.append(f'fiber rerank --images FOLDER --query "what to search for" --checkpoint {name}')
        calls.append('print(model.embed_images("picture.jpg").shape)')
    if can(facts.config, Matching):
        calls.append('print(model.match("picture.jpg", ["one text", "another text"]))')
    lines = ["## Use", "", "With `fiber` installed (the package `fiber-vl`):", "", "```bash", *commands, "```", ""]
    python = ["from fiber_cli import Fiber", "", f'model = Fiber.from_pretrained("{name}")', *calls]
    return "\n".join([*lines, "```python", *python, "```", ""])


def _example(labels: Sequence[str]) -> str:
    """The first labels as a prompt that stands between quotes, of a shell and of Python."""
    plain = []
    for label in labels[:_EXAMPLE_LABELS]:
        plain.append(" ".join(re.sub(r'["$`\\!]', "", label).split()))
    return " . ".join(plain)


def _training(facts: CardFacts) -> str:
    """Data, length and recipe; nothing where no run is known."""
    run = facts.run
    if not run.recipe:
        return "## Training\n\nThe run that made it is not known here, as of converted checkpoints.\n"
    rows: dict[str, Any] = {"data": _data(run.recipe)}
    if run.start is not None:
        rows["begun with"] = run.start
    rows["steps"] = run.step
    summary = run.summary
    if summary.get("steps"):
        rows["steps of the run"] = f"{summary['steps']}, {summary.get('images')} images, {summary.get('seconds')} s"
        rows["hardware"] = f"{summary.get('ranks')} × {hardware_of(summary)}"
        rows["versions"] = f"fiber {summary.get('fiber')}, torch {summary.get('torch')}"
    # Lists and mappings of plain values stand in one line.
    recipe = yaml.safe_dump(run.recipe, sort_keys=False, width=110, allow_unicode=True, default_flow_style=None)
    return f"## Training\n{_table(rows)}\nThe recipe, its paths without their folders:\n\n```yaml\n{recipe}```\n"


def _data(recipe: dict[str, Any]) -> str:
    """The entries of training data, by their form and the last parts of their paths."""
    section = recipe.get("data") or {}
    named = []
    for entry in section.get("train") or []:
        if not isinstance(entry, dict):
            continue  # of a recipe that somebody has changed
        kind = str(entry.get("kind"))
        usual = {"kind": kind, **_defaults(kind)}
        values = [f"{key} {value}" for key, value in entry.items() if value and value != usual.get(key)]
        named.append(f"{kind} ({', '.join(values)})" if values else kind)
    return "; ".join(named)


def _defaults(kind: str) -> dict[str, Any]:
    """The settings of a form of data that an entry need not give, as YAML has them."""
    if kind not in FORMATS:
        return {}
    values = {}
    for setting in dataclasses.fields(source_format(kind).settings):
        if setting.default is not dataclasses.MISSING:
            values[setting.name] = list(setting.default) if isinstance(setting.default, tuple) else setting.default
    return values


def _metrics(measured: Sequence[Measured]) -> str:
    if not measured:
        return "## Metrics\n\nNone were measured in its run.\n"
    parts = ["## Metrics", "", "Percentages are 0 to 100.", ""]
    for each in measured:
        rows = {f"`{name}`": f"{value:.4g}" for name, value in each.metrics.items()}
        parts += [f"On {_markdown(f'{each.dataset} {each.split}'.strip())}:", _table(rows)]
    return "\n".join(parts)


def _rest(facts: CardFacts) -> str:
    lines = [
        "## Files",
        "",
        "`model.safetensors` has the weights, `config.json` what they are of, `tokenizer/` its data files and",
        "`SHA256SUMS` the digests of all.",
    ]
    if facts.has_words:
        lines.append("`words.txt` has the words of its training's texts: fiber says of others that it never saw them.")
    lines.append("Neither optimiser state nor training data is here, and no code.")
    return "\n".join([*lines, f"Written by fiber {fiber_cli.__version__}.", ""])


def _table(rows: dict[str, Any]) -> str:
    lines = ["", "| | |", "|---|---|"]
    lines += [f"| {name} | {_markdown(value)} |" for name, value in rows.items()]
    return "\n".join([*lines, ""])


def _markdown(value: Any) -> str:
    """A text of a user in a cell of a table."""
    return re.sub(r"([|<])", r"\\\1", one_line(value))
