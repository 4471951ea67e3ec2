"""Writing a configuration and reading what is said about it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bastion.config import Config, load_config
from bastion.errors import ConfigError

Load = Callable[[str | bytes], Config]
Problems = Callable[[str | bytes], list[str]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Load this text as config.yaml of tmp_path."""

    def load(text: str | bytes) -> Config:
        path = tmp_path / "config.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_config(path)

    return load


@pytest.fixture
def problems(load: Load, tmp_path: Path) -> Problems:
    """What is wrong with this text: `line: option: what`, without the file's name, which each line starts with."""

    def problems(text: str | bytes) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(text)
        prefix = f"{tmp_path}/config.yaml:"
        assert all(problem.startswith(prefix) for problem in caught.value.problems), caught.value.problems
        return [problem.removeprefix(prefix) for problem in caught.value.problems]

    return problems
