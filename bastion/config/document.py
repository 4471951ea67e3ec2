"""A YAML file as nodes that know their lines; whatever it holds, the answer is a mapping or a ConfigError."""

import re
from pathlib import Path

import yaml

from bastion.errors import ConfigError, printable

MAX_BYTES = 256 * 1024
MAX_DEPTH = 30
TAG = "tag:yaml.org,2002:"


class _Composer(yaml.SafeLoader):
    """YAML as nodes. A word is text unless it is plainly true, false, null or a decimal number.

    YAML 1.1 reads `no` as false, 22:22 in base 60, 010 as eight and a date as a date; none of them is meant here.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as in yaml's Resolver
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call] # not in the stubs
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_DEPTH} levels deep", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


for _tag, _pattern, _first in [
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]{0,17})", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL", "~nN"),
    ("merge", r"<<", "<"),
]:
    _Composer.add_implicit_resolver(TAG + _tag, re.compile(rf"(?:{_pattern})\Z"), list(_first))
_Composer.add_implicit_resolver(f"{TAG}null", re.compile(r"\Z"), [""])


def _text(path: Path, file: str) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError([f"{file}: there is no such file; config.example.yaml shows what belongs in it"]) from None
    except IsADirectoryError:
        raise ConfigError([f"{file}: found a folder; a YAML file is right"]) from None
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise ConfigError([f"{file}: can not be read: {reason}; a file that this user may read is right"]) from None
    if len(data) > MAX_BYTES:
        raise ConfigError([f"{file}: found more than {MAX_BYTES // 1024} KiB; a configuration is smaller"])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{file}:{line}: found byte 0x{data[error.start]:02x}; text in UTF-8 is right"]) from None


def compose(path: Path) -> yaml.MappingNode:
    """The file's one mapping. Raises ConfigError."""
    file = printable(str(path))
    text = _text(path, file)
    try:
        root = _Composer(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        tabs = [number for number, one in enumerate(text.splitlines(), 1) if re.match(r" *\t\s*\S", one)]
        if line in tabs:
            problems = [f"{file}:{tab}: found a tab in the indentation; spaces are right" for tab in tabs]
        else:
            problems = [f"{file}:{line}: {_yaml_problem(error)}"]
        raise ConfigError(problems) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            [f"{file}:{line}: found the control character {chr(error.character)!r}; text is right"]
        ) from None
    except (ValueError, OverflowError):  # PyYAML on "\Uffffffff"
        raise ConfigError([f'{file}: found an escape like "\\U00110000" in it that is no character']) from None
    if root is None:
        raise ConfigError([f"{file}: found nothing in it; sections are right, such as 'auth:'"])
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError([f"{file}:1: found {kind_of(root)}; sections are right, such as 'auth:'"])
    return root


def _yaml_problem(error: yaml.MarkedYAMLError) -> str:
    """Never a name from the file: `password: *hunter2` is taken for an alias."""
    problem = f"{error.problem or error.context}"
    if "alias" in problem or "anchor" in problem:
        return "found a '*' or '&' that YAML takes for an alias or its anchor; quotes around the value are right"
    if "tag" in problem:
        return "found a '!' or '%' that YAML takes for a tag; quotes around the value are right"
    if problem.startswith("mapping values are not allowed"):
        return "found ': ' where no option can be; check the indentation, or put the value in quotes"
    if problem.startswith("but found another document"):
        return "found a second document after '---'; one is right"
    return f"found what is not YAML: {printable(problem)}"


def kind_of(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return "nothing" if node.tag == f"{TAG}null" else "a single value"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a section"
