"""A file of Pascal VOC's annotations: one picture's objects, in XML."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from fiber_cli.data.records import Size
from fiber_cli.data.source import BadSample
from fiber_cli.data.values import finite_number, flag, some_text
from fiber_cli.regular_files import read_regular

_EDGES = ("xmin", "ymin", "xmax", "ymax")


class VocObject(NamedTuple):
    """box: xmin, ymin, xmax, ymax as the file has them."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


class VocPicture(NamedTuple):
    """filename: as the file has it, "" without one; size: None where it does not tell; objects: their elements."""

    filename: str
    size: Size | None
    objects: list[Element]


def read_voc_xml(file: Path) -> VocPicture:
    """What a file says of its picture. Raises `BadSample`, or ValueError for values of a wrong form."""
    try:
        root = _parsed(read_regular(file))
    except OSError as error:
        raise BadSample(f"{error.strerror}") from None
    except expat.ExpatError as error:
        raise BadSample(f"no XML ({error})") from None
    if root.tag != "annotation":
        raise BadSample(f"its root is <{root.tag}>, not <annotation>")
    return VocPicture(_text(root, "filename"), _size(root), root.findall("object"))


def read_voc_object(element: Element) -> VocObject:
    """Raises ValueError for an <object> without a name or a box."""
    name = some_text(_text(element, "name"), "<name>")
    box = element.find("bndbox")
    if box is None:
        raise ValueError(f"{name!r} has no <bndbox>")
    edges = [_number(box, edge) for edge in _EDGES]
    return VocObject(
        name, (edges[0], edges[1], edges[2], edges[3]), flag(_text(element, "difficult") or "0", "difficult")
    )


def object_names(element: Element) -> Iterator[str]:
    """The name of an <object>, none where it has none."""
    name = _text(element, "name")
    if name:
        yield name


def _number(element: Element, tag: str) -> float:
    text = _text(element, tag)
    if not text:
        raise ValueError(f"there is no <{tag}> in <{element.tag}>")
    return finite_number(text, f"<{tag}>")


def _text(element: Element, tag: str) -> str:
    """The text of a child, without white space around it; "" where there is none."""
    return (element.findtext(tag) or "").strip()


def _size(root: Element) -> Size | None:
    """Tools that did not know it write nothing, or zeros."""
    sides = [_text(root, f"size/{side}") for side in ("height", "width")]
    if not all(sides):
        return None
    height, width = (finite_number(side, "<size>") for side in sides)
    if height < 1 or width < 1:
        return None
    return int(height), int(width)


def _parsed(content: bytes) -> Element:
    """The root of an XML document. A document type, by which entities would multiply or name other files, is refused:
    VOC's files have none."""
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = _end_of(builder)
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse
    parser.Parse(content, True)
    return builder.close()


def _end_of(builder: TreeBuilder) -> Any:
    def end(tag: str) -> None:
        builder.end(tag)

    return end


def _refuse(*_: Any) -> None:
    raise BadSample("it declares a document type, as files of VOC do not; take the <!DOCTYPE …> out")
