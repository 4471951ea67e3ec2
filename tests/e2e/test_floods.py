"""Nothing is lost: not one byte that anybody received, whenever the bastion is killed."""

from pathlib import Path

import pytest

from tests.e2e.flooding import ROUNDS_IN_A_TEST, SESSIONS, Found, kill_again_and_again
from tests.servers.engine import Engine


@pytest.mark.timeout(300)
def test_what_clients_and_containers_received_is_recorded_whenever_the_bastion_is_killed(
    folder: Path, engine: Engine
) -> None:
    found = kill_again_and_again(folder, engine, ROUNDS_IN_A_TEST)
    sessions = ROUNDS_IN_A_TEST * SESSIONS
    assert min(found.to_clients, found.to_containers) > sessions * 1000
    assert found == Found(
        ROUNDS_IN_A_TEST, sessions, found.to_clients, found.to_containers, missing=0, lost=sessions, verified=sessions
    )
