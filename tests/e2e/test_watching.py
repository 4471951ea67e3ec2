"""`bastion sessions watch` beside a live bastion: what a stock client sees is on the auditor's terminal too."""

from tests.e2e.terminal import on_terminal
from tests.servers.bastion import BASTION, Bastion


def test_a_session_is_watched_live_until_it_is_ended_by_the_watcher(bastion: Bastion) -> None:
    where = ("-c", f"{bastion.folder}/config.yaml")
    with on_terminal(bastion.ssh_command("alice+web.worker.1")) as user:
        user.expect(rb"[#$] ")
        user.type(b"echo before-$((40+2))\r")
        user.expect(rb"before-42\r\n")
        session = bastion.events("session.start")[-1]["session_id"]
        with on_terminal([*BASTION, "sessions", "watch", session, *where]) as watcher:
            watcher.expect(rb"before-42")
            user.type(b"echo live-$((40+2))\r")
            watcher.expect(rb"live-42")
            viewed = bastion.wait_for_event("recording.viewed", session_id=session)
            assert (viewed["user"], viewed["how"]) == ("root", "watch")
            with on_terminal([*BASTION, "sessions", "kill", session, "--why", "seen enough", *where]) as killer:
                assert killer.wait(30) == 0
            user.expect(rb"ended by the administrators: seen enough")
            watcher.expect(rb"ended by the administrators: seen enough")
            assert user.wait() == 255
            assert watcher.wait(30) == 0
