import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import docker
import pytest

from bastion import config
from bastion.containers.engine import CONNECTIONS, Engine
from bastion.errors import Reason, Refusal, Unavailable
from tests.servers.engine import Engine as DockerEngine


@pytest.fixture
async def own(engine: DockerEngine) -> AsyncIterator[Engine]:
    own = Engine(config.Engine(url=engine.url, cluster="east", timeout=10))
    yield own
    await own.close()


async def refused(engine: Engine, function: object, **kwargs: float) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await engine.call(function, **kwargs)  # type: ignore[arg-type]
    return caught.value


async def test_a_call_runs_in_a_thread_of_the_engines_own(own: Engine) -> None:
    assert (own.name, own.cluster) == ("local", "east")
    name = await own.call(lambda client: (client.ping(), threading.current_thread().name)[1])
    assert name.startswith("engine-local")


async def test_calls_at_once_share_a_bounded_number_of_connections(own: Engine) -> None:
    at_once, most, lock = 0, 0, threading.Lock()

    def slow(client: docker.APIClient) -> str:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        version = client.version()["ApiVersion"]
        time.sleep(0.02)
        with lock:
            at_once -= 1
        return str(version)

    versions = await asyncio.gather(*(own.call(slow) for _ in range(100)))
    assert len(set(versions)) == 1
    assert 1 < most <= CONNECTIONS


async def test_an_engine_that_is_down_at_first_is_used_when_it_is_there(engine: DockerEngine, tmp_path: Path) -> None:
    link = tmp_path / "engine.sock"
    own = Engine(config.Engine(url=f"unix://{link}"))
    refusal = await refused(own, lambda client: client.ping())
    assert isinstance(refusal, Unavailable)
    assert refusal.reason is Reason.ENGINE_UNAVAILABLE
    assert "engine.sock" in refusal.log_text
    assert "engine.sock" not in refusal.user_text
    link.symlink_to(engine.url.removeprefix("unix://"))
    assert await own.call(lambda client: client.ping()) is True
    await own.close()


async def test_an_engine_that_never_answers_is_unavailable_in_time(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "s"))
        silent.listen(50)
        own = Engine(config.Engine(url=f"unix://{tmp_path}/s", timeout=0.3))
        began = time.monotonic()
        refusals = await asyncio.gather(*(refused(own, lambda client: client.ping()) for _ in range(40)))
        assert time.monotonic() - began < 5
        assert {type(refusal) for refusal in refusals} == {Unavailable}
        await own.close()


async def test_what_the_engine_says_no_to(own: Engine, engine: DockerEngine) -> None:
    paused, stopped = engine.run(), engine.run()
    paused.pause()
    stopped.kill()
    stopped.wait()
    for container, reason in (
        ("no-such-container", Reason.NO_SUCH_CONTAINER),
        (paused.id, Reason.CONTAINER_PAUSED),
        (stopped.id, Reason.CONTAINER_NOT_RUNNING),
    ):
        refusal = await refused(own, lambda client, name=container: client.exec_create(name, "true"))
        assert refusal.reason is reason
        assert not isinstance(refusal, Unavailable)
        assert container[:12] in refusal.log_text
        assert container[:12] not in refusal.user_text
    refusal = await refused(own, lambda client: client.containers(filters={"nonsense": ["x"]}))
    assert refusal.reason is Reason.ENGINE_ERROR
    assert "nonsense" in refusal.log_text
    assert "nonsense" not in refusal.user_text


@pytest.mark.parametrize(
    ("status", "words", "reason"),
    [
        (503, "", Reason.ENGINE_UNAVAILABLE),
        (500, "rpc error: transport is closing", Reason.ENGINE_UNAVAILABLE),
        (500, "something broke", Reason.ENGINE_ERROR),
        (400, "bad", Reason.ENGINE_ERROR),
        (409, "Container 1 is restarting, wait until the container is running", Reason.CONTAINER_NOT_RUNNING),
        (409, "name in use", Reason.ENGINE_ERROR),
    ],
)
async def test_statuses(own: Engine, status: int, words: str, reason: Reason) -> None:
    refusal = own.refusal(status, words)
    assert refusal.reason is reason
    assert isinstance(refusal, Unavailable) == (reason is Reason.ENGINE_UNAVAILABLE)


async def test_close_ends_what_waits_and_later_calls_are_refused(engine: DockerEngine) -> None:
    own = Engine(config.Engine(url=engine.url, timeout=5))
    calls = [asyncio.create_task(own.call(lambda _: time.sleep(0.2))) for _ in range(CONNECTIONS + 10)]
    await asyncio.sleep(0)
    began = time.monotonic()
    await own.close()
    assert time.monotonic() - began < 2
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert results.count(None) == CONNECTIONS
    assert isinstance(await refused(own, lambda client: client.ping()), Unavailable)
