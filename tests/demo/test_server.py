"""The demo's port, passwords and configuration."""

import socket
from pathlib import Path

import pytest

from bastion.config import Engine, EngineTls, load_config
from demo import server
from demo.terminal import Problem


def test_a_port_that_is_taken_is_a_sentence_that_names_another() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            Problem, match=rf"Port {port} .*\(Address already in use\).*BASTION_PORT={port + 1} make demo"
        ):
            server.port_of({"BASTION_PORT": str(port)})


@pytest.mark.parametrize("text", ["0", "-1", "65536", "ssh", "22 ", "²", "9" * 30])
def test_what_is_no_port_is_a_sentence(text: str) -> None:
    with pytest.raises(Problem, match="is no port: a number from 1 to 65535 is"):
        server.port_of({"BASTION_PORT": text})


def test_passwords_are_made_once_and_are_private(tmp_path: Path) -> None:
    file = tmp_path / "passwords.yaml"
    first = server.passwords(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert server.passwords(file) == first
    assert first.keys() == {"alice", "bob"}
    assert len(set(first.values())) == 2


def test_passwords_are_made_again_where_a_crash_left_an_empty_file(tmp_path: Path) -> None:
    file = tmp_path / "passwords.yaml"
    file.touch()
    assert server.passwords(file).keys() == {"alice", "bob"}


def test_the_bastion_understands_the_configuration(tmp_path: Path) -> None:
    run, keys = tmp_path / "a b/demo/run", tmp_path / "a b/keys"
    run.mkdir(parents=True)
    tls = EngineTls(ca=tmp_path / "ca.pem", cert=tmp_path / "cert.pem", key=tmp_path / "key.pem")
    for file in (tls.ca, tls.cert, tls.key):
        file.touch()
    config = load_config(server.configure(run, keys, 2299, Engine(name="demo", url="tcp://127.0.0.1:2376", tls=tls)))
    assert config.ssh.listen == ("127.0.0.1:2299",)
    assert [path.resolve() for path in config.ssh.host_keys] == [
        keys / "ssh_host_ed25519_key",
        keys / "ssh_host_rsa_key",
    ]
    assert config.engines[0].tls == tls
    assert config.recording.folder.resolve() == run / "recordings"
    assert str(run) in config.database.url.get_secret_value()
