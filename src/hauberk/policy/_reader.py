"""Walking a YAML node tree with the line and the field's path at hand, so that every refusal can name both."""

import re
from collections.abc import Collection, Iterator

import yaml

from hauberk.errors import PolicyError

MAX_BYTES = 16 * 1024 * 1024
MAX_NAME = 512  # characters of a field's name; an annotation's has at most 317
MAX_TEXT = 8192  # characters of a value: longer than any path or SPIFFE ID a server takes, short enough for any check
_STRING = "tag:yaml.org,2002:str"
_INT = "tag:yaml.org,2002:int"
_BOOL = "tag:yaml.org,2002:bool"
_NULL = "tag:yaml.org,2002:null"
_MAP = "tag:yaml.org,2002:map"
_SEQ = "tag:yaml.org,2002:seq"
MAX_DEPTH = 64  # of flow collections
MAX_INDENT = 200  # columns; bounds the depth of block collections
# The composer written in C recurses without a guard of its own. libyaml stops at a depth of its own (1,000), but not in
# every build, so what is plainly too deep is refused before it runs.
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
        return _is_nothing(self.node)

    def fields(self, allowed: Collection[str] | None = None, *, nulls: bool = False) -> dict[str, "Reader"]:
        """Return the fields of a mapping.

        Args:
            allowed: names there may be; None for any.
            nulls: whether a field without a value is the same as no field. Inside a rule it is not: `from:` with
                nothing behind it would match everybody.

        Raises:
            PolicyError: HBK-301 no mapping, a field that is repeated, unknown or without a value.
        """
        if not isinstance(self.node, yaml.MappingNode) or self.node.tag != _MAP:
            raise self.error("a mapping is needed")
        found: dict[str, Reader] = {}
        for key, value in self.node.value:
            name = self._name(key)
            child = self._child(value, f"{self.path}.{name}".strip("."))
            if name in found:
                raise child.error("the field is repeated")
            if allowed is not None and name not in allowed:
                raise child.error("unknown field" + _suggestion(name, allowed))
            if child.is_null and not nulls:
                raise child.error("the field has no value; leave it out")
            found[name] = child
        return {name: child for name, child in found.items() if not child.is_null}

    def _name(self, key: yaml.Node) -> str:
        if not isinstance(key, yaml.ScalarNode) or key.tag not in {_STRING, _INT}:
            raise self.error("a field name is a plain string")
        if len(key.value) > MAX_NAME:
            raise self.error(f"a field name has more than {MAX_NAME} characters")
        return str(key.value)

    def items(self) -> list["Reader"]:
        """Return the items of a sequence.

        Raises:
            PolicyError: HBK-301 no sequence.
        """
        if not isinstance(self.node, yaml.SequenceNode) or self.node.tag != _SEQ:
            raise self.error("a list is needed")
        return [self._child(node, f"{self.path}[{at}]") for at, node in enumerate(self.node.value)]

    def text(self, *, empty: bool = False, limit: int = MAX_TEXT) -> str:
        """Return a string.

        Args:
            empty: whether it may be empty.
            limit: characters it may have.

        Raises:
            PolicyError: HBK-301 no string (a number needs quotes), empty, too long.
        """
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag != _STRING:
            raise self.error("a string is needed (put numbers in quotes)")
        value = str(self.node.value)
        if not value and not empty:
            raise self.error("the string is empty")
        if len(value) > limit:
            raise self.error(f"the string has more than {limit} characters")
        return value

    def texts(self) -> tuple[str, ...]:
        """Return a list of strings, none of them empty."""
        return tuple(item.text() for item in self.items())

    def flag(self) -> bool:
        """Return a boolean.

        Raises:
            PolicyError: HBK-301 neither `true` nor `false`.
        """
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag != _BOOL:
            raise self.error("true or false is needed")
        if self.node.value.lower() not in {"true", "false"}:
            raise self.error("true or false is needed")  # YAML takes yes and on for true, Kubernetes does not
        return bool(self.node.value.lower() == "true")

    def number(self, most: int) -> int:
        """Return a plain decimal number from 0 to `most`.

        Raises:
            PolicyError: HBK-301 no such number.
        """
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag != _INT:
            raise self.error("a number is needed")
        return decimal(self, str(self.node.value), 0, most)


def decimal(reader: Reader, text: str, least: int, most: int) -> int:
    """Return the number a text is: ASCII digits without a leading zero, which YAML would read as octal.

    Raises:
        PolicyError: HBK-301 no such number.
    """
    if not re.fullmatch("0|[1-9][0-9]{0,9}", text) or not least <= int(text) <= most:
        raise reader.error(f"not a number from {least} to {most}: {text[:40]}")
    return int(text)


def _is_nothing(node: yaml.Node) -> bool:
    """Tell a null from something that was merely tagged as one."""
    return isinstance(node, yaml.ScalarNode) and node.tag == _NULL and node.value.lower() in {"", "~", "null"}


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
            if not _is_nothing(node):
                yield Reader(node, file, "", set())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        why = getattr(error, "problem", None) or "not YAML"
        line = mark.line + 1 if mark else 1
        raise PolicyError("HBK-301", str(why), file=file, line=line, field="document") from None
    except (RecursionError, ValueError):
        raise PolicyError("HBK-301", "nested too deeply, or not text", file=file, line=1, field="document") from None
