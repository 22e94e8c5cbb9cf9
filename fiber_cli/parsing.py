"""JSON and YAML as values, within bounds: text of a stranger ends in ValueError or yaml.YAMLError, never in a full
stack or in a full memory. Everything that reads either of them does it here."""

import json
import re
from collections.abc import Callable
from typing import Any

import yaml

from fiber_cli.text_files import MARK, decode_text

#: Levels of lists and mappings in one another.
MAX_DEPTH = 100
#: Nodes of a YAML text, with all that its aliases stand for.
MAX_NODES = 1_000_000
#: Characters of a YAML text; the parser takes a second for about 100,000.
MAX_YAML = 16 * 2**20
TAG = "tag:yaml.org,2002:"

#: The core schema of YAML 1.2: tag, pattern, and what a scalar of it can begin with.
_SCALARS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9][0-9_]*", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
)
#: The tags of each kind of node.
_TAGS: dict[type[yaml.Node], tuple[str, ...]] = {
    yaml.MappingNode: ("map",),
    yaml.SequenceNode: ("seq",),
    yaml.ScalarNode: ("bool", "null", "int", "float", "str"),
}


def parse_json(
    content: str | bytes,
    *,
    object_hook: Callable[[dict[str, Any]], Any] | None = None,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """The value that a JSON text says, in UTF-8 or what its byte-order mark tells. ValueError for what is none, for
    lists and objects too deep in one another, and for whole numbers of thousands of digits."""
    text = decode_text(content) if isinstance(content, bytes) else content.removeprefix(MARK)
    try:
        return json.loads(text, object_hook=object_hook, object_pairs_hook=object_pairs_hook)
    except RecursionError:
        raise ValueError("lists or objects lie too deep in one another") from None


class Loader(yaml.SafeLoader):
    """PyYAML's parser with the scalar rules of YAML 1.2's core schema: `1e-5` is a number, and only `true` and `false`
    are truth values."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (filled below, in PyYAML's own way)
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.depth == MAX_DEPTH:
            raise _error(f"lists and mappings lie more than {MAX_DEPTH} deep in one another", self.get_mark())
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _tag, _pattern, _first in _SCALARS:
    Loader.add_implicit_resolver(TAG + _tag, re.compile(f"(?:{_pattern})$"), list(_first))


def compose(text: str, name: str) -> yaml.Node:
    """The node tree of one YAML document; an empty document is a null. `name` is what the marks of nodes call the
    source. Aliases are allowed, as far as they end and stand for no more than MAX_NODES nodes; tags are not, but for
    those of the core schema.

    Raises yaml.YAMLError.
    """
    if len(text) > MAX_YAML:
        raise yaml.YAMLError(f"a text of {len(text):,} characters; at most {MAX_YAML:,} are read")
    loader = Loader(text)
    loader.name = name
    empty = yaml.ScalarNode(f"{TAG}null", "", loader.get_mark())
    try:
        root = loader.get_single_node() or empty
    finally:
        loader.dispose()
    _Bounds().check(root)
    return root


def plain(node: yaml.Node) -> Any:
    """The node as dicts, whose keys are texts, lists and scalars."""
    if isinstance(node, yaml.MappingNode):
        return {str(plain(key)): plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [plain(item) for item in node.value]
    match node.tag.removeprefix(TAG):
        case "null":
            return None
        case "bool":
            return node.value.lower() == "true"
        case "int":
            return int(node.value.replace("_", ""))
        case "float":
            return _float(node.value)
    return node.value


def parse_yaml(text: str, name: str = "") -> Any:
    """The value of a YAML text, see `compose` and `plain`. Raises yaml.YAMLError."""
    return plain(compose(text, name))


def _float(text: str) -> float:
    digits = text.lower().replace("_", "")
    # `.inf` and `.nan` are Python's without the dot.
    return float(re.sub(r"\.(?=[a-z])", "", digits))


class _Bounds:
    """How many nodes each node stands for and how deep they go, aliases followed."""

    def __init__(self) -> None:
        #: Nodes and levels by the node's id; nothing of nodes that are being gone through.
        self.known: dict[int, tuple[int, int] | None] = {}

    def check(self, node: yaml.Node) -> tuple[int, int]:
        """Nodes and levels; raises yaml.YAMLError for too many of either, and for scalars that are not of their tag."""
        if id(node) in self.known:
            known = self.known[id(node)]
            if known is None:
                raise _error("an alias stands inside of what it stands for", node.start_mark)
            return known
        self.known[id(node)] = None
        if node.tag.removeprefix(TAG) not in _TAGS[type(node)]:
            raise _error(f"the tag {node.tag} is none of YAML's own for this", node.start_mark)
        nodes, depth = 1, 0
        for child in _children(node):
            more, deeper = self.check(child)
            nodes += more
            depth = max(depth, deeper)
        if nodes > MAX_NODES:
            raise _error(f"aliases make more than {MAX_NODES:,} values of it", node.start_mark)
        if depth == MAX_DEPTH:
            raise _error(f"lists and mappings lie more than {MAX_DEPTH} deep in one another", node.start_mark)
        self.known[id(node)] = nodes, depth + 1
        return nodes, depth + 1


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    try:
        plain(node)
    except (ValueError, AttributeError) as error:
        raise _error(f"no {node.tag.removeprefix(TAG)}: {error}", node.start_mark) from None
    return []


def _error(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
