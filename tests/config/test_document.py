import os
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bastion.config import load_config
from bastion.errors import ConfigError
from tests.config.conftest import Load, Problems


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", " found nothing in it; sections are right, such as 'auth:'"),
        ("# only a comment\n---\n", "1: found nothing; sections are right, such as 'auth:'"),
        ("- a\n", "1: found a list; sections are right, such as 'auth:'"),
        ("hunter2\n", "1: found a single value; sections are right, such as 'auth:'"),
        (b"auth:\n  local: \xff\n", "2: found byte 0xff; text in UTF-8 is right"),
        ("auth: {}\n".encode("utf-16"), "1: found byte 0xff; text in UTF-8 is right"),
        (b"auth:\n  local: \x1b[2J\n", "2: found the control character '\\x1b'; text is right"),
        (b"auth:\n  local: \0\n", "2: found the control character '\\x00'; text is right"),
        ("auth: {}\n---\nauth: {}\n", "2: found a second document after '---'; one is right"),
        ("auth: [\n", "2: found what is not YAML: "),
        ("auth: local: x\n", "1: found ': ' where no option can be; check the indentation, or put the value in quotes"),
        ('auth: "\\Uffffffff"\n', ' found an escape like "\\U00110000" in it that is no character'),
        ("x: " + "[" * 50 + "]" * 50, "1: found what is not YAML: more than 30 levels deep"),
        ("x: " + "[" * 100_000, "1: found what is not YAML: more than 30 levels deep"),
        ("#" * 300_000, " found more than 256 KiB; a configuration is smaller"),
    ],
)
def test_what_is_no_configuration_at_all_is_named_with_its_line(
    problems: Problems, text: str | bytes, said: str
) -> None:
    assert len(problems(text)) == 1
    assert problems(text)[0].startswith(said)


def test_each_line_indented_with_a_tab_is_named(problems: Problems) -> None:
    tab = "found a tab in the indentation; spaces are right"
    assert problems("ssh:\n\tmax_auth_tries: 3\nauth:\n  \tlocal: {}\n") == [f"2: {tab}", f"4: {tab}"]


def test_a_tab_inside_text_is_no_problem(load: Load) -> None:
    banner = "|\n    one\n    \ttwo\n"
    assert load(f"auth: {{local: {{}}}}\nssh:\n  banner: {banner}").ssh.banner == "one\n\ttwo\n"


@pytest.mark.parametrize(
    "secret", ["*hunter2", "&hunter2", "!hunter2", "!h!hunter2", "%hunter2", "@hunter2", "`hunter2"]
)
def test_a_secret_that_yaml_takes_for_syntax_is_not_printed(problems: Problems, secret: str) -> None:
    (said, *_) = problems(f"auth:\n  ldap:\n    servers: [ldaps://a]\n    bind_password: {secret} x: y\n")
    assert said.startswith("4: ")
    assert "hunter2" not in said


def test_a_file_that_can_not_be_read_says_why(tmp_path: Path) -> None:
    missing = tmp_path / "missing\x1b[2J.yaml"
    with pytest.raises(ConfigError, match=r"missing\\x1b\[2J\.yaml: there is no such file; config\.example\.yaml"):
        load_config(missing)
    with pytest.raises(ConfigError, match="found a folder; a YAML file is right"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="can not be read: Not a directory; a file that this user may read is right"):
        load_config(Path("/dev/null/config.yaml"))
    with pytest.raises(ConfigError, match="can not be read: embedded null byte"):
        load_config(Path("a\0b"))


def test_a_file_of_somebody_else_says_so(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("auth: {local: {}}\n")
    path.chmod(0o600)
    # as another user, in a process of its own; only what a stranger may read of the tests' folder is in its way
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - the child never returns
        os.setresuid(65534, 65534, 65534)
        try:
            load_config(path)
        except ConfigError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        assert pipe.read() == f"{path}: can not be read: Permission denied; a file that this user may read is right"


def test_a_configuration_may_come_from_a_pipe(tmp_path: Path) -> None:
    fifo = tmp_path / "config"
    os.mkfifo(fifo)
    with subprocess.Popen(["sh", "-c", f"echo 'auth: {{local: {{}}}}' > {fifo}"]):
        assert load_config(fifo).auth.local is not None


BOMB = "a: &a {x: y}\n" + "".join(
    f"{chr(98 + level)}: &{chr(98 + level)} [{', '.join(['*' + chr(97 + level)] * 9)}]\n" for level in range(20)
)
MERGE_BOMB = "a: &a {x: y}\n" + "".join(
    f"{chr(98 + level)}: &{chr(98 + level)}\n  <<: [{', '.join(['*' + chr(97 + level)] * 9)}]\n" for level in range(20)
)
CHAIN = "a0: &a0 {x: y}\n" + "".join(f"a{n + 1}: &a{n + 1} {{x: *a{n}}}\n" for n in range(5000))


@pytest.mark.parametrize(
    "text", [BOMB, MERGE_BOMB, CHAIN, "auth: &a [*a]\n", "auth: &a\n  <<: *a\n", "auth: &a {ldap: *a}\n"]
)
def test_aliases_that_multiply_or_contain_themselves_are_bounded(problems: Problems, text: str) -> None:
    started = time.thread_time()
    (said,) = problems(text)
    assert "found aliases (*name) that multiply without end; write the values out" in said
    assert time.thread_time() - started < 10


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(st.characters(codec="utf-8"), max_size=200).map(str.encode),
        st.text("auth:local{}[]-!&*|>%@`'\"#,? \n\t<0123.~$\\x", max_size=80).map(str.encode),
    )
)
def test_whatever_the_file_holds_the_answer_is_a_configuration_or_a_config_error(load: Load, data: bytes) -> None:
    problems: list[str] = []
    try:
        load(data)
    except ConfigError as error:
        problems = error.problems
    assert all(problem.isprintable() for problem in problems)
