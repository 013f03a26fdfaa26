"""Walking a YAML node tree with the line and the field's path at hand, so that every refusal can name both."""

import re
from collections.abc import Collection, Iterator

import yaml

from hauberk.errors import PolicyError

MAX_BYTES = 16 * 1024 * 1024
_STRING = "tag:yaml.org,2002:str"
_INT = "tag:yaml.org,2002:int"
_BOOL = "tag:yaml.org,2002:bool"
_NULL = "tag:yaml.org,2002:null"
_MAP = "tag:yaml.org,2002:map"
_SEQ = "tag:yaml.org,2002:seq"
MAX_DEPTH = 64  # of flow collections
MAX_INDENT = 200  # columns; bounds the depth of block collections
# The composer written in C recurses without a guard of its own, so depth is bounded before it runs.
_BRACKET = re.compile(r"[\[\]{}]")
_DEEP = re.compile(rf"^ {{{MAX_INDENT},}}|(?:[-?:][ \t]+){{20,}}", re.MULTILINE)
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Reader:
    """One node and where it is.

    Args:
        node: from the YAML composer.
        file: its file, for messages.
        path: its field, such as `spec.rules[0].to`.
        seen: nodes read so far; a node met twice is an alias.
    """

    __slots__ = ("_seen", "file", "node", "path")

    def __init__(self, node: yaml.Node, file: str, path: str, seen: set[int]) -> None:
        self.node = node
        self.file = file
        self.path = path
        self._seen = seen
        if id(node) in seen:
            raise self.error("anchors and aliases are not allowed")
        seen.add(id(node))

    @property
    def line(self) -> int:
        """The line it starts on, from 1."""
        return int(self.node.start_mark.line) + 1

    def error(self, why: str, *, field: str = "", code: str = "HBK-301") -> PolicyError:
        """Return the refusal of this node, or of a field in it."""
        path = f"{self.path}.{field}".strip(".") if field else self.path
        return PolicyError(code, why, file=self.file, line=self.line, field=path or "document")

    def _child(self, node: yaml.Node, path: str) -> "Reader":
        return Reader(node, self.file, path, self._seen)

    @property
    def is_null(self) -> bool:
        """Whether nothing is written here."""
        return self.node.tag == _NULL

    def fields(self, allowed: Collection[str] | None = None) -> dict[str, "Reader"]:
        """Return the fields of a mapping, nulls left out.

        Args:
            allowed: names there may be; None for any.

        Raises:
            PolicyError: HBK-301 no mapping, a repeated or unknown field.
        """
        if self.is_null:
            return {}
        if not isinstance(self.node, yaml.MappingNode) or self.node.tag != _MAP:
            raise self.error("a mapping is needed")
        found: dict[str, Reader] = {}
        for key, value in self.node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag not in {_STRING, _INT}:
                raise self.error("a field name is a plain string")
            name = key.value
            child = self._child(value, f"{self.path}.{name}".strip("."))
            if name in found:
                raise child.error("the field is repeated")
            if allowed is not None and name not in allowed:
                raise child.error("unknown field" + _suggestion(name, allowed))
            found[name] = child
        return {name: child for name, child in found.items() if not child.is_null}

    def items(self) -> list["Reader"]:
        """Return the items of a sequence.

        Raises:
            PolicyError: HBK-301 no sequence.
        """
        if not isinstance(self.node, yaml.SequenceNode) or self.node.tag != _SEQ:
            raise self.error("a list is needed")
        return [self._child(node, f"{self.path}[{at}]") for at, node in enumerate(self.node.value)]

    def text(self) -> str:
        """Return a string that is not empty.

        Raises:
            PolicyError: HBK-301 no string (a number needs quotes), or empty.
        """
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag != _STRING:
            raise self.error("a string is needed (put numbers in quotes)")
        if not self.node.value:
            raise self.error("the string is empty")
        return str(self.node.value)

    def texts(self) -> tuple[str, ...]:
        """Return a list of strings."""
        return tuple(item.text() for item in self.items())

    def flag(self) -> bool:
        """Return a boolean."""
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag != _BOOL:
            raise self.error("true or false is needed")
        return str(self.node.value).lower() in {"true", "yes", "on"}

    def plain(self) -> object:
        """Return whatever is here as plain data, for fields that are kept as written."""
        if isinstance(self.node, yaml.MappingNode):
            return {name: child.plain() for name, child in self.fields().items()}
        if isinstance(self.node, yaml.SequenceNode):
            return [item.plain() for item in self.items()]
        if self.node.tag == _BOOL:
            return self.flag()
        if self.node.tag not in {_STRING, _INT}:
            raise self.error("a string, a number or a boolean is needed")
        return str(self.node.value)


def _suggestion(name: str, allowed: Collection[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  # only a refusal needs it

    close = get_close_matches(name, allowed, 1)
    return f"; did you mean {close[0]}?" if close else ""


def _too_deep(text: str) -> bool:
    depth = 0
    for found in _BRACKET.finditer(text):
        depth += 1 if found.group() in "[{" else -1
        if depth > MAX_DEPTH:
            return True
    return _DEEP.search(text) is not None


def documents(text: str, file: str) -> Iterator[Reader]:
    """Yield the non-empty documents of a YAML text.

    Raises:
        PolicyError: HBK-301 too large, not YAML, nested too deeply.
    """
    if len(text) > MAX_BYTES:
        raise PolicyError("HBK-301", "the file is too large", file=file, line=1, field="document")
    if _too_deep(text):
        raise PolicyError("HBK-301", "nested too deeply", file=file, line=1, field="document")
    try:
        for node in yaml.compose_all(text, Loader=_Loader):
            if node.tag != _NULL:
                yield Reader(node, file, "", set())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        why = getattr(error, "problem", None) or "not YAML"
        line = mark.line + 1 if mark else 1
        raise PolicyError("HBK-301", str(why), file=file, line=line, field="document") from None
    except (RecursionError, ValueError):
        raise PolicyError("HBK-301", "nested too deeply, or not text", file=file, line=1, field="document") from None
