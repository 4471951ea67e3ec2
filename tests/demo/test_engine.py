"""Which engine the demo takes, and what it says when there is none."""

import socket
from pathlib import Path

import pytest

from demo import engine as demo_engine
from demo.dockerd import Dockerd
from demo.terminal import Problem
from tests.servers.engine import Engine


@pytest.fixture(autouse=True)
def no_engine_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_engine, "DOCKER", Path("/nonexistent/docker.sock"))
    monkeypatch.setattr(demo_engine, "PODMAN", Path("/nonexistent/podman.sock"))


def test_takes_docker_host(engine: Engine) -> None:
    found, _ = demo_engine.find({"DOCKER_HOST": engine.url})
    assert found is not None
    assert found.url == engine.url


@pytest.mark.parametrize("socket_path", ["docker.sock", "podman/podman.sock"])
def test_takes_a_users_own_engine(engine: Engine, servers_folder: Path, socket_path: str) -> None:
    link = servers_folder / socket_path
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(engine.url.removeprefix("unix://"))
    found, silent = demo_engine.find({"XDG_RUNTIME_DIR": str(servers_folder)})
    link.unlink()
    assert found is not None
    assert found.url == f"unix://{link}"
    assert silent[0] == "/nonexistent/docker.sock: not there"


def test_goes_on_from_a_socket_that_nobody_serves(servers_folder: Path) -> None:
    dead = servers_folder / "docker.sock"
    with socket.socket(socket.AF_UNIX) as once:
        once.bind(str(dead))
    found, silent = demo_engine.find({"XDG_RUNTIME_DIR": str(servers_folder)})
    dead.unlink()
    assert found is None
    assert [line.partition(":")[0] for line in silent] == [
        "/nonexistent/docker.sock",
        str(dead),
        f"{servers_folder}/podman/podman.sock",
        "/nonexistent/podman.sock",
    ]
    assert "refused" in silent[1]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("unix:///nonexistent/docker.sock", "DOCKER_HOST=unix:///nonexistent/docker.sock does not answer"),
        ("tcp://127.0.0.1:1", "DOCKER_HOST=tcp://127.0.0.1:1 does not answer"),
        ("ssh://somewhere", "DOCKER_HOST=ssh://somewhere: the bastion speaks to unix:// and tcp:// only"),
    ],
)
def test_a_wrong_docker_host_is_named(url: str, says: str) -> None:
    with pytest.raises(Problem) as caught:
        demo_engine.find({"DOCKER_HOST": url})
    assert says in str(caught.value)


def test_a_docker_host_with_tls_brings_its_files_and_says_which_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="does not answer"):
        demo_engine.find(
            {"DOCKER_HOST": "tcp://127.0.0.1:1", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
        )


def test_says_what_is_missing_where_it_may_not_start_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))  # no sudo in it
    with pytest.raises(Problem) as caught:
        demo_engine.start(Dockerd(tmp_path), ["/var/run/docker.sock: you may not use it"])
    for part in (
        "/var/run/docker.sock: you may not use it",
        "usermod -aG docker",
        "install docker.io",
        "sudo make demo",
    ):
        assert part in str(caught.value)
    assert not Dockerd(tmp_path).exists()
