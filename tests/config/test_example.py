"""config.example.yaml has every option, says the default, and what it switches off with a # is right, too."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from bastion.config import Auth, Config, LocalUsers, Section
from bastion.config.loader import _alternatives
from tests.config.conftest import Load

TEXT = Path(__file__).parents[2].joinpath("config.example.yaml").read_text()
OPTION = re.compile(r"^( *)#(?=[a-z-]|  )", re.MULTILINE)  # `#ldap:` and `#  servers:`; a sentence is `# Sentence.`
INSTEAD = re.compile(r"# instead of ([\w, ]+)$")


def uncommented(alternative: bool) -> str:
    """With all that is switched off switched on: either what is marked `# instead of a, b`, or a and b."""
    lines = OPTION.sub(r"\1", TEXT).splitlines(keepends=True)
    replaced = {name for line in lines if (found := INSTEAD.search(line)) for name in found[1].split(", ")}
    assert replaced
    if alternative:
        return "".join(line for line in lines if line.split(":")[0].strip() not in replaced)
    return "".join(line for line in lines if not INSTEAD.search(line))


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the example refers to."""
    (tmp_path / "engine").mkdir()
    for name in ("ldap-ca.pem", "syslog-ca.pem", "sso-ca.pem", "engine/ca.pem", "engine/cert.pem", "engine/key.pem"):
        (tmp_path / name).touch()
    (tmp_path / "sso-secret").write_text("hunter2\n")
    monkeypatch.setenv("LDAP_PASSWORD", "hunter2")


def test_it_loads_and_every_value_is_the_default(load: Load, tmp_path: Path) -> None:
    assert load(TEXT) == Config(auth=Auth(local=LocalUsers())).resolved(tmp_path)


@pytest.mark.parametrize("alternative", [False, True])
def test_what_is_switched_off_is_right_as_well(load: Load, alternative: bool) -> None:
    config = load(uncommented(alternative))
    assert config.auth.ldap is not None
    assert (config.auth.ldap.bind_template is not None) is alternative
    if not alternative:
        assert config.auth.ldap.bind_password == SecretStr("hunter2")
    assert config.auth.oidc is not None
    assert config.auth.oidc.client_secret == SecretStr("hunter2")
    assert [engine.cluster for engine in config.engines] == ["prod", "prod"]
    assert config.access.rules


def _options(data: Any, annotation: Any, path: str = "") -> set[str]:
    """The options that are in `data`, as `ssh.listen` and `engines[].tls.ca`."""
    found = set()
    for kind in _alternatives(annotation):
        if isinstance(kind, type) and issubclass(kind, Section) and isinstance(data, dict):
            for name, value in data.items():
                found.add(f"{path}.{name}")
                found |= _options(value, kind.model_fields[name].annotation, f"{path}.{name}")
        elif isinstance(data, list):
            for item in data:
                found |= _options(item, kind.__args__[0], f"{path}[]")
    return found


def _all(annotation: Any, path: str = "") -> set[str]:
    """The options that there are."""
    found = set()
    for kind in _alternatives(annotation):
        if isinstance(kind, type) and issubclass(kind, Section):
            for name, field in kind.model_fields.items():
                found |= {f"{path}.{name}"} | _all(field.annotation, f"{path}.{name}")
        elif getattr(kind, "__origin__", None) is tuple:
            found |= _all(kind.__args__[0], f"{path}[]")
    return found


def test_every_option_is_in_it() -> None:
    there = _options(yaml.safe_load(uncommented(False)), Config) | _options(yaml.safe_load(uncommented(True)), Config)
    everything = _all(Config)
    assert {".ssh.max_startups.rate", ".auth.ldap.servers", ".engines[].tls.ca", ".access.rules[].apps"} <= everything
    assert there == everything


def test_every_option_has_a_sentence() -> None:
    """A comment in the line before where it is first, or in the one before that where two options share it."""
    lines = OPTION.sub(r"\1", TEXT).splitlines()
    explained: set[str] = set()
    for number, line in enumerate(lines):
        if option := re.match(r" *(?:- )?([a-z_0-9]+):", line):
            near = any("#" in before for before in lines[max(0, number - 2) : number])
            assert near or option[1] in explained, f"line {number + 1}: {line}"
            explained.add(option[1])
