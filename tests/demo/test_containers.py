"""The demo's image and containers, in a real engine."""

from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from demo import containers
from demo.processes import mark_of
from demo.terminal import Problem
from tests.servers.engine import Engine

RUN = Path("/somewhere/demo/run")


@pytest.fixture
def client(engine: Engine) -> Iterator[docker.DockerClient]:
    yield engine.client
    containers.remove(engine.client, RUN)


def of_demo(client: docker.DockerClient) -> list[docker.models.containers.Container]:
    return client.containers.list(all=True, filters={"label": containers.LABEL})


def test_each_container_runs_with_its_labels_and_with_bash(client: docker.DockerClient) -> None:
    containers.start(client, RUN)
    found = {container.name.removeprefix("bastion-demo-"): container for container in of_demo(client)}
    assert found.keys() == containers.CONTAINERS.keys()
    for name, labels in containers.CONTAINERS.items():
        assert labels.items() <= found[name].labels.items()
        assert found[name].status == "running"
    asked = ["bash", "-c", "echo $BASH_VERSION; whoami; hostname; vi --help 2>&1"]
    status, output = found["web.worker.1"].exec_run(asked)
    assert status == 0
    assert output.decode().split("\n")[1:3] == ["root", "web-worker-1"]


def test_removes_containers_and_image_and_again_nothing(client: docker.DockerClient) -> None:
    containers.start(client, RUN)
    containers.remove(client, RUN)
    assert of_demo(client) == []
    assert not client.images.list(mark_of(RUN))
    containers.remove(client, RUN)


def test_another_demo_in_the_same_engine_is_named_and_left_alone(client: docker.DockerClient) -> None:
    containers.start(client, RUN)
    other = Path("/other/demo/run")
    with pytest.raises(Problem, match="/somewhere/demo/run: run make demo-down there"):
        containers.start(client, other)
    containers.remove(client, other)
    assert len(of_demo(client)) == len(containers.CONTAINERS)


def test_an_engine_that_is_gone_is_a_sentence() -> None:
    client = docker.DockerClient(base_url="tcp://127.0.0.1:1", version="1.41")
    with pytest.raises(Problem, match="The Docker engine says"):
        containers.start(client, RUN)
