"""The results of an evaluation, on disk and on screen."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fiber_cli.characters import one_line
from fiber_cli.checkpoints.run_files import RESULTS
from fiber_cli.outputs import LEDGER, Outputs, Pending, explained
from fiber_cli.parsing import parse_json
from fiber_cli.regular_files import read_regular
from fiber_cli.text_files import dump_json

_DIRECTIONS = (("image retrieval (IR)", "ir"), ("text retrieval (TR)", "tr"))


def check_results(output: Path, files: Iterable[str], outputs: Outputs) -> None:
    """UserError where the results or the files of a `Result` beside them may not or cannot be written."""
    is_own = is_of_0_1(output)
    for name in (*files, RESULTS):
        outputs.check(output / name, own=is_own)


def write_results(output: Path, results: dict[str, Any], files: dict[str, Any], outputs: Outputs | None = None) -> None:
    """`output`/results.json, and the files of a `Result` beside it: text as it is, everything else as JSON. Where
    results.json is there, all are of one evaluation: files of an earlier one, such as of another task, that are as
    fiber wrote them are removed. UserError where they cannot be written; then all stays as it was."""
    outputs = outputs or Outputs()
    is_own = is_of_0_1(output)
    earlier = _files_of_earlier(output, outputs)
    pending: list[Pending] = []
    try:
        for name, content in {**files, RESULTS: results}.items():
            text = content if isinstance(content, str) else dump_json(content, indent=2) + "\n"
            begun = outputs.begin(output / name, own=is_own)
            pending.append(begun)
            with explained(begun.file):
                begun.temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        outputs.publish(*pending)
    except BaseException:
        for begun in reversed(pending):
            begun.drop()
        raise
    for name in earlier:
        stale = output / name
        if name not in files and outputs.wrote(stale):
            with explained(stale):
                stale.unlink()


def _files_of_earlier(output: Path, outputs: Outputs) -> list[str]:
    """The files beside the results of an earlier evaluation in a folder, as results.json has them."""
    if not outputs.wrote(output / RESULTS):
        return []
    results = parse_json(read_regular(output / RESULTS))
    files = results.get("files", []) if isinstance(results, dict) else []
    return [str(name) for name in files]


def is_of_0_1(output: Path) -> bool:
    """Whether a folder has the results of an evaluation by version 0.1, which kept no ledger."""
    if (output / LEDGER).exists():
        return False
    try:
        results = parse_json((output / RESULTS).read_bytes())
        return str(results["version"]).startswith("0.1.") and {"dataset", "metrics", "checkpoint"} <= results.keys()
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def table(results: dict[str, Any]) -> str:
    """The results for the screen; recalls as one row per way and direction."""
    metrics = dict(results["metrics"])
    counts = f"{results['samples']} samples"
    if "texts" in results:
        counts = f"{results['images']} images, {results['texts']} texts"
    lines = [f"{results['dataset']} {results['split']}, {results['mode']}: {counts}, {results['seconds']} s"]
    ways = _ways_of_retrieval(metrics)
    width = max([11, *map(len, ways)])
    for way in ways:
        for title, direction in _DIRECTIONS:
            cells = [f"@{k} {metrics.pop(f'{way}/{direction}@{k}'):6.2f}" for k in (1, 5, 10)]
            lines.append(f"  {way:<{width}} {title:<21} {'   '.join(cells)}")
    width = max([32, *map(len, metrics)])
    for name, value in metrics.items():
        lines.append(f"  {name:<{width}} {value:8.2f}")
    if results["bad"]:
        lines.append(f"  left out: {len(results['bad'])}, such as {': '.join(results['bad'][0])}")
    if results["truncated"]:
        lines.append(f"  {results['truncated']} texts were cut at the model's text length")
    lines.extend(f"  {note}" for note in results["notes"])
    return "\n".join(map(one_line, lines))


def _ways_of_retrieval(metrics: dict[str, float]) -> list[str]:
    """Such as "itc" and "rerank-50", in their order."""
    ways = [name.partition("/")[0] for name in metrics if "/ir@" in name]
    return list(dict.fromkeys(ways))
