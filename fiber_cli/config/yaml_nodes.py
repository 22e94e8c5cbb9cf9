"""YAML as a tree of nodes that know their places, and settings put over it."""

import yaml

from fiber_cli.parsing import TAG, compose, plain

COMMAND_LINE = "command line"


def place(node: yaml.Node) -> str:
    """`file:line`, or the command line."""
    mark = node.start_mark
    return mark.name if mark.name == COMMAND_LINE else f"{mark.name}:{mark.line + 1}"


def override(root: yaml.Node, text: str) -> str | None:
    """Sets `section.key=value` or `list.0.key=value` in the tree; returns what is wrong with it, or None."""
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        return f"{COMMAND_LINE}: {text!r} is not of the form section.key=value"
    try:
        graft(root, keys, compose(value, COMMAND_LINE))
    except yaml.YAMLError as error:
        return f"{COMMAND_LINE}: {path}: {value!r} is not valid YAML: {reason(error)}"
    except LookupError as error:
        return f"{COMMAND_LINE}: {path}: {error.args[0]}"
    return None


def graft(node: yaml.Node, keys: list[str], new: yaml.Node) -> yaml.Node:
    """`node` with `new` at `keys`; mappings not there yet are made. Raises LookupError(what is wrong)."""
    if not keys:
        return new
    if is_null(node):
        node = empty_mapping(new.start_mark)
    if isinstance(node, yaml.MappingNode):
        _graft_mapping(node, keys, new)
    elif isinstance(node, yaml.SequenceNode):
        _graft_sequence(node, keys, new)
    else:
        raise LookupError(f"{node.value!r} is a single value, it has no {keys[0]!r}")
    return node


def _graft_mapping(node: yaml.MappingNode, keys: list[str], new: yaml.Node) -> None:
    key, rest = keys[0], keys[1:]
    for i, (name, child) in enumerate(node.value):
        if name.value == key:
            node.value[i] = (name, graft(child, rest, new))
            return
    added = yaml.ScalarNode(f"{TAG}str", key, new.start_mark)
    child = graft(empty_mapping(new.start_mark), rest, new)
    node.value.append((added, child))


def _graft_sequence(node: yaml.SequenceNode, keys: list[str], new: yaml.Node) -> None:
    key, rest = keys[0], keys[1:]
    if not key.isdecimal() or int(key) >= len(node.value):
        raise LookupError(f"the list has {len(node.value)} items, counted from 0; there is no {key!r}")
    number = int(key)
    node.value[number] = graft(node.value[number], rest, new)


def is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and plain(node) is None


def empty_mapping(mark: yaml.Mark) -> yaml.MappingNode:
    return yaml.MappingNode(f"{TAG}map", [], mark)


def reason(error: yaml.YAMLError) -> str:
    """What is wrong with a text that is not YAML, in one line."""
    problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else None
    return " ".join(str(problem or error).split())
