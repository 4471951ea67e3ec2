"""From a YAML file to a Config, or every problem at once: file, line, option, what was found, what would be right.

What is in the file is shown only where it can not be a secret, and never unescaped.
"""

import difflib
import os
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import SecretStr, ValidationError

from bastion.config.document import MAX_DEPTH, TAG, compose, kind_of
from bastion.config.places import OptionPath, Places
from bastion.config.section import Section
from bastion.config.sections import Config
from bastion.errors import ConfigError, printable

MAX_SECRET_BYTES = 64 * 1024
MAX_NODES = 20_000  # after aliases are followed: what a "billion laughs" file multiplies

# pydantic's error types -> what would be right; {names} are from the error's context
_RIGHT = {
    "string_type": "text is right; put it in quotes if it is meant as text",
    "int_type": "a whole number is right",
    "int_parsing": "a whole number is right",
    "int_from_float": "a whole number is right",
    "int_parsing_size": "a smaller number is right",
    "float_type": "a number is right",
    "float_parsing": "a number is right",
    "finite_number": "a finite number is right",
    "bool_type": "true or false is right",
    "bool_parsing": "true or false is right",
    "path_type": "the path of a file is right",
    "tuple_type": "a list is right: one '- item' a line, or [item, item]",
    "model_type": "a section is right: one 'option: value' a line, indented",
    "literal_error": "{expected} is right",
    "greater_than": "more than {gt:g} is right",
    "greater_than_equal": "at least {ge} is right",
    "less_than_equal": "at most {le} is right",
    "too_short": "at least {min_length} of them is right",
}


def load_config(path: Path) -> Config:
    """The configuration in the YAML file `path`; relative paths in it start at the file's folder.

    Raises ConfigError with one line for each thing that is wrong.
    """
    file = printable(str(path))
    root = compose(path)
    folder = Path(os.path.abspath(path)).parent  # noqa: PTH100 - resolve() would follow a symlink to another folder
    reader = _Reader(file, folder)
    config = None
    try:
        config = Config.model_validate(reader.value(root, ()), context={"folder": folder})
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            reader.invalid(detail["loc"], detail["type"], detail.get("ctx", {}), detail["msg"])
    if reader.problems or config is None:
        raise ConfigError(
            [f"{file}:{line}: {text}" for line, text in sorted(reader.problems, key=lambda found: found[0])]
        )
    return config.resolved(folder).written_at(reader.places)


def _quoted(text: str) -> str:
    """`text` in quotes, not endless, and without the password that may be in a URL."""
    text = re.sub(r"://[^/@\s]*@", "://…@", text)
    return repr(text if len(text) <= 60 else text[:59] + "…")


def _written(path: OptionPath) -> str:
    """`auth.ldap.servers[1]`"""
    parts = [f"[{part}]" if isinstance(part, int) else f".{_quoted(part)[1:-1]}" for part in path]
    return "".join(parts).removeprefix(".") or "the file"


# ---- which option is it? ----


def _alternatives(annotation: Any) -> list[Any]:
    """`X | None` and Annotated[X, ...], taken apart."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [one for part in get_args(annotation) for one in _alternatives(part)]
    return [annotation]


def _expected(path: OptionPath) -> list[Any]:
    """The types that the option at `path` may have; none if there is no such option."""
    expected: list[Any] = [Config]
    for part in path:
        annotations: list[Any]
        if isinstance(part, int):
            annotations = [get_args(kind)[0] for kind in expected if get_origin(kind) is tuple]
        else:
            sections = [kind for kind in expected if isinstance(kind, type) and issubclass(kind, Section)]
            annotations = [kind.model_fields[part].annotation for kind in sections if part in kind.model_fields]
        expected = [one for annotation in annotations for one in _alternatives(annotation)]
    return expected


def _section(path: OptionPath) -> type[Section] | None:
    return next((kind for kind in _expected(path) if isinstance(kind, type) and issubclass(kind, Section)), None)


# ---- nodes to values ----


class _Reader:
    """Makes plain values of nodes, remembers where each was, and collects what is wrong as (line, text)."""

    def __init__(self, file: str, folder: Path) -> None:
        self._file = file
        self.problems: list[tuple[int, str]] = []
        self._folder = folder
        self._nodes: dict[OptionPath, yaml.Node] = {}
        self._lines: dict[OptionPath, int] = {(): 1}
        self.places = Places(file, self._lines)
        self._unread: set[OptionPath] = set()
        self._count = 0
        self._depth = 0

    def value(self, node: yaml.Node, path: OptionPath) -> object:
        self._nodes[path] = node
        self._count += 1
        self._depth += 1
        if self._count > MAX_NODES or self._depth > MAX_DEPTH:  # also an alias that contains itself
            where = f"{self._file}:{node.start_mark.line + 1}: {_written(path)}"
            raise ConfigError([f"{where}: found aliases (*name) that multiply without end; write the values out"])
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self._at(item, (*path, index), item) for index, item in enumerate(node.value)]
            return self._scalar(node, path)
        finally:
            self._depth -= 1

    def _at(self, node: yaml.Node, path: OptionPath, where: yaml.Node) -> object:
        self._lines[path] = where.start_mark.line + 1
        return self.value(node, path)

    def _mapping(self, node: yaml.MappingNode, path: OptionPath) -> dict[str, object]:
        merged: dict[str, object] = {}
        for key, value in node.value:
            if key.tag == f"{TAG}merge":
                sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
                for source in reversed(sources):  # the first of them wins
                    if isinstance(source, yaml.MappingNode):
                        merged |= self._same(source, path)
                    else:
                        self._unreadable(path, "found '<<' with something else than sections; <<: *name is right")
        own: dict[str, object] = {}
        for key, value in node.value:
            if key.tag == f"{TAG}merge":
                continue
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self.problems.append((line, f"{_written(path)}: found {kind_of(key)} as a name; a word is right"))
                continue
            option = (*path, key.value)
            if key.value in own:
                first = self._lines[option]
                text = f"found a second time; once is right (the first is on line {first})"
                self.problems.append((line, f"{_written(option)}: {text}"))
                continue
            own[key.value] = self._at(value, option, key)
        return merged | own

    def _same(self, node: yaml.MappingNode, path: OptionPath) -> dict[str, object]:
        value = self.value(node, path)
        assert isinstance(value, dict)
        return value

    def _scalar(self, node: yaml.Node, path: OptionPath) -> object:
        # `ssh:` with every option commented out is the section's defaults; `~` is nothing
        nothing: dict[str, object] | None = {} if not node.value and _section(path) is not None else None
        readers: dict[str, Callable[[str], object]] = {
            "null": lambda _: nothing,
            "bool": lambda text: {"true": True, "false": False}[text.lower()],
            "int": int,
            "float": float,
            "str": lambda text: self._secret(self._expanded(text), path),
        }
        kind = node.tag.removeprefix(TAG)
        if kind not in readers:
            return self._unreadable(path, "found a tag ('!...'); quotes around the value are right")
        try:
            return readers[kind](node.value)
        except (KeyError, ValueError) as error:
            said = str(error) if kind == "str" else f"found !!{kind} with something else; leaving it out is right"
            return self._unreadable(path, said)

    def _expanded(self, text: str) -> str:
        """`${NAME}` and `${NAME:-default}` from the environment; `$${` is `${`."""

        def one(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            if match["name"] is None:
                raise ValueError(
                    "found '${' without a name; ${NAME} or ${NAME:-default} is right, or $${ for a plain ${"
                )
            value = os.environ.get(match["name"])
            if match["default"] is not None:
                return value or match["default"]
            if value is None:
                name = match["name"]
                raise ValueError(f"the environment variable {name} is not set; set it, or write ${{{name}:-default}}")
            return value

        expanded = re.sub(
            r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\})?", one, text, flags=re.ASCII
        )
        if "\0" in expanded:
            raise ValueError("found the control character '\\x00'; text is right")
        return expanded

    def _secret(self, text: str, path: OptionPath) -> str:
        """What `file:path` names, for secrets only; one newline at its end is not part of it."""
        if not text.startswith("file:") or SecretStr not in _expected(path):
            return text
        file = self._folder / text.removeprefix("file:")
        try:
            with file.open("rb") as stream:
                data = stream.read(MAX_SECRET_BYTES + 1)
            if len(data) > MAX_SECRET_BYTES:
                raise ValueError(
                    f"{printable(str(file))} has more than {MAX_SECRET_BYTES // 1024} KiB; a secret is right"
                )
            secret = data.decode()
        except OSError as error:
            raise ValueError(f"{printable(str(file))} can not be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{printable(str(file))} is not UTF-8; text is right") from None
        secret = secret.removesuffix("\n").removesuffix("\r")
        if not secret:
            raise ValueError(f"{printable(str(file))} is empty; the secret is right")
        return secret

    def _unreadable(self, path: OptionPath, text: str) -> object:
        self._unread.add(path)
        self.problems.append((self._lines[path], f"{_written(path)}: {text}"))
        return None

    # ---- what the sections say about the values ----

    def invalid(self, location: OptionPath, kind: str, context: dict[str, Any], message: str) -> None:
        """Add one of pydantic's errors, in words for whoever wrote the file."""
        path = location
        while path not in self._nodes:
            path = path[:-1]
        if any(location == bad[: len(location)] or bad == location[: len(bad)] for bad in self._unread):
            return  # said already
        if kind == "too_short" and self._nodes[path].value:
            return  # pydantic counts the items that are right; what is wrong with the others is said
        if kind == "extra_forbidden":
            text = self._unknown(path)
        elif kind == "missing":
            path, text = location, "is missing; it has no default"
        elif kind == "value_error":
            scalar = isinstance(self._nodes[path], yaml.ScalarNode)
            text = f"{self._found(path) if scalar else ''}{printable(str(context['error']))}"
        else:
            text = f"{self._found(path)}{_RIGHT[kind].format(**context) if kind in _RIGHT else message}"
        self.problems.append((self.places.line(path), f"{_written(path)}: {text}"))

    def _found(self, path: OptionPath) -> str:
        node = self._nodes[path]
        if not isinstance(node, yaml.ScalarNode) or node.tag == f"{TAG}null":
            return f"found {kind_of(node)}; "
        if SecretStr in _expected(path):
            return "found a value that is not shown here; "
        if _section(path) is not None:  # `database: postgresql://bastion:password@...`
            return "found a single value; "
        return f"found {_quoted(node.value) if node.tag == f'{TAG}str' else node.value}; "

    def _unknown(self, path: OptionPath) -> str:
        section = _section(path[:-1])
        assert section is not None
        close = difflib.get_close_matches(str(path[-1]), section.model_fields, n=1)
        right = f"did you mean {close[0]}?" if close else f"options here: {', '.join(section.model_fields)}"
        return f"there is no such option; {right}"
