import contextlib
import os
import stat
import subprocess
from pathlib import Path

import asyncssh
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bastion.errors import ConfigError
from bastion.ssh import host_keys


@pytest.fixture
def keys(tmp_path: Path) -> list[Path]:
    """An ed25519 and an RSA key that are right."""
    paths = [tmp_path / "keys/ssh_host_ed25519_key", tmp_path / "keys/ssh_host_rsa_key"]
    assert [host_keys.generate(path) for path in paths] == [True, True]
    return paths


def problems(*paths: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        host_keys.load(paths)
    return caught.value.problems


def test_keys_are_made_for_their_owner_only_and_openssh_reads_them(keys: list[Path]) -> None:
    lengths = []
    for path, key in zip(keys, host_keys.load(keys), strict=True):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        listed = subprocess.run(["ssh-keygen", "-lf", path], check=True, capture_output=True, text=True).stdout
        assert key.get_fingerprint() in listed
        lengths.append(listed.split()[0])
    assert lengths == ["256", "3072"]
    assert stat.S_IMODE(keys[0].parent.stat().st_mode) == 0o700
    assert sorted(keys[0].parent.iterdir()) == sorted(keys)  # nothing unfinished is left


def test_an_ecdsa_key_can_be_made_and_another_name_says_what_is_right(tmp_path: Path) -> None:
    host_keys.generate(tmp_path / "ssh_host_ecdsa_key")
    (key,) = host_keys.load([tmp_path / "ssh_host_ecdsa_key"])
    assert key.get_algorithm() == "ecdsa-sha2-nistp256"
    with pytest.raises(ConfigError, match=r"/host_key: .* a name such as ssh_host_ed25519_key or ssh_host_rsa_key"):
        host_keys.generate(tmp_path / "host_key")


def test_what_is_there_is_never_overwritten(keys: list[Path], tmp_path: Path) -> None:
    before = keys[0].read_bytes()
    assert host_keys.generate(keys[0]) is False
    assert keys[0].read_bytes() == before
    dangling = tmp_path / "dangling_ed25519"
    dangling.symlink_to("nowhere")
    assert host_keys.generate(dangling) is False
    assert not (tmp_path / "nowhere").exists()


def test_a_key_that_is_there_costs_nothing(keys: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made or written: the folder may be read-only."""
    monkeypatch.setattr(asyncssh, "generate_private_key", None)
    assert host_keys.generate(keys[1]) is False


def test_two_that_make_the_same_key_agree_on_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ssh_host_ed25519_key"
    generate = asyncssh.generate_private_key

    def slowly(*args: object) -> asyncssh.SSHKey:
        path.write_text("the other's")
        return generate(*args)  # type: ignore[arg-type] # handed on as it came

    monkeypatch.setattr(asyncssh, "generate_private_key", slowly)
    assert host_keys.generate(path) is False
    assert path.read_text() == "the other's"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_which_nothing_can_be_made_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^/proc/keys/x/ed25519: can not be made: "):
        host_keys.generate(Path("/proc/keys/x/ed25519"))


def test_a_symlink_to_a_key_is_fine(keys: list[Path], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(keys[0])
    assert host_keys.load([tmp_path / "link"])


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o640, 0o620, 0o602, 0o601, 0o610])
def test_a_key_that_others_can_read_is_refused(keys: list[Path], mode: int) -> None:
    keys[1].chmod(mode)
    assert problems(*keys) == [
        f"ssh.host_keys[1]: {keys[1]} has mode {mode:04o}: others can read it; mend it with: chmod 600 {keys[1]}"
    ]


def test_a_key_of_root_may_be_for_the_group_of_the_service_but_not_for_all(keys: list[Path]) -> None:
    """As sshd has it: the mode is the owner's affair, unless it is everybody's."""
    os.chown(keys[0], 65534, -1)  # the tests are root; to them this key is somebody else's
    keys[0].chmod(0o640)
    assert host_keys.load([keys[0]])
    keys[0].chmod(0o644)
    assert "others can read it" in problems(keys[0])[0]


def test_the_command_that_mends_a_mode_works_with_any_file_name(tmp_path: Path) -> None:
    path = tmp_path / "a key; rm -rf 'ed25519"
    host_keys.generate(path)
    path.chmod(0o644)
    (problem,) = problems(path)
    subprocess.run(problem.split("mend it with: ")[1], shell=True, check=True)
    assert host_keys.load([path])


def test_a_key_that_this_user_can_not_read_is_named_with_what_mends_it(keys: list[Path], tmp_path: Path) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - the child never returns
        os.setresuid(65534, 65534, 65534)
        os.write(writer, problems(keys[0])[0].encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == (
            f"ssh.host_keys[0]: {keys[0]} can not be read by nobody; mend it with: chown nobody {keys[0]}"
        )


def test_every_file_that_is_no_private_key_is_named_at_once(keys: list[Path], tmp_path: Path) -> None:
    def file(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        path.chmod(0o600)
        return path

    os.mkfifo(tmp_path / "fifo", 0o600)
    key = asyncssh.read_private_key(keys[0])
    paths = [
        tmp_path / "missing",
        tmp_path,
        tmp_path / "fifo",
        file("empty", b""),
        file("header", b"-----BEGIN OPENSSH) PRIVATE KEY-----\nAAAA\n-----END OPENSSH) PRIVATE KEY-----\n"),
        file("public", key.export_public_key()),
        file("locked", key.export_private_key(passphrase="secret")),
        keys[0],
        file("second", asyncssh.generate_private_key("ssh-ed25519").export_private_key()),
    ]
    starts = [
        f"{tmp_path}/missing does not exist; make it with: bastion keys init",
        f"{tmp_path} can not be read: Is a directory",
        f"{tmp_path}/fifo is not a file; a private key is right",
        f"{tmp_path}/empty is no private key; make another with: bastion keys init",
        f"{tmp_path}/header is no private key; make another with: bastion keys init",
        f"{tmp_path}/public is a public key; the private key of the pair is right",
        f"{tmp_path}/locked is protected by a passphrase, which nobody could type at a start; remove it with: ssh-",
        "",
        f"{tmp_path}/second is a second key of the kind ssh-ed25519; one of each kind is right",
    ]
    found = problems(*paths)
    expected = [f"ssh.host_keys[{index}]: {start}" for index, start in enumerate(starts) if start]
    assert len(found) == len(expected)
    for problem, start in zip(found, expected, strict=True):
        assert problem.startswith(start)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(0, 380), st.integers(0, 255)), min_size=1, max_size=5))
def test_a_damaged_key_is_no_key_and_nothing_worse(keys: list[Path], damage: list[tuple[int, int]]) -> None:
    data = bytearray(keys[0].read_bytes())
    for position, byte in damage:
        data[position] = byte
    path = keys[0].with_name("damaged")
    path.touch(0o600)
    path.write_bytes(data)
    with contextlib.suppress(ConfigError):  # the comment in it may be damaged without harm
        host_keys.load([path])
