import os
from pathlib import Path

import pytest

from bastion.config import Config, load_config
from bastion.errors import ConfigError
from tests.config.conftest import Load, Problems

LOCAL = "auth: {local: {}}\n"
LISTEN = "a host and a port is right, such as 0.0.0.0:2222 or [::1]:2222"
TRUTH = "true and false do not fit here; put quotes around it if it is meant as text"
ITEMS = "a list is right: one '- item' a line, or [item, item]"
OPTIONS = "a section is right: one 'option: value' a line, indented"
LDAP = "auth:\n  ldap:\n    servers: [ldaps://a]\n    search_base: dc=example\n"


def test_every_problem_is_said_at_once_in_the_order_of_the_lines(
    problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNSET", raising=False)
    text = """\
ssh:
  listen: [":2222", "0.0.0.0:99999"]
  max_auth_tries: 0
  max_startups: {start: 10, full: 5}
  lisen: x
auth:
  ldap:
    serverz: ldaps://a
    bind_password: ${UNSET}
recording:
  mode: lax
  mode: strict
database: postgresql://a:hunter2@x/y
audit:
  file:
access:
  rules:
  - apps: [a]
  - apps: web
    users: [1]
zebra: 1
"""
    assert problems(text) == [
        f"2: ssh.listen[0]: found ':2222'; {LISTEN}",
        f"2: ssh.listen[1]: found '0.0.0.0:99999'; {LISTEN}",
        "3: ssh.max_auth_tries: found 0; at least 1 is right",
        "4: ssh.max_startups: a start that is at most full is right; start is 10, full is 5",
        "5: ssh.lisen: there is no such option; did you mean listen?",
        "7: auth.ldap.servers: is missing; it has no default",
        "8: auth.ldap.serverz: there is no such option; did you mean servers?",
        "9: auth.ldap.bind_password: the environment variable UNSET is not set; set it, or write ${UNSET:-default}",
        "11: recording.mode: found 'lax'; 'strict' or 'best_effort' is right",
        "12: recording.mode: found a second time; once is right (the first is on line 11)",
        f"13: database: found a single value; {OPTIONS}",
        "14: audit: at least one place for the audit log is right: file, or stdout: true",
        "18: access.rules[0]: users, groups or a claim is right: this rule allows nobody anything",
        f"19: access.rules[1].apps: found 'web'; {ITEMS}",
        "20: access.rules[1].users[0]: found 1; text is right; put it in quotes if it is meant as text",
        f"21: zebra: there is no such option; options here: {', '.join(Config.model_fields)}",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ssh: {}\n", "1: auth: is missing; it has no default"),
        ("auth: {}\n", "1: auth: at least one way to sign in is right: local, ldap, oidc, lain or certificates"),
        (LOCAL + "engines:\n", f"2: engines: found nothing; {ITEMS}"),
        (LOCAL + "engines: []\n", "2: engines: found a list; at least 1 of them is right"),
        (LOCAL + "engines: {}\n", f"2: engines: found a section; {ITEMS}"),
        (LOCAL + "ssh: [a]\n", f"2: ssh: found a list; {OPTIONS}"),
        (LOCAL + "ssh: {chacha20: maybe}\n", "2: ssh.chacha20: found 'maybe'; true or false is right"),
        (LOCAL + "ssh: {max_sessions: 2.5}\n", "2: ssh.max_sessions: found 2.5; a whole number is right"),
        (LOCAL + "ssh: {max_sessions: ten}\n", "2: ssh.max_sessions: found 'ten'; a whole number is right"),
        (
            LOCAL + "ssh: {max_sessions: true}\n",
            f"2: ssh.max_sessions: found true; {TRUTH}",
        ),
        (
            LOCAL + f"ssh: {{max_sessions: {'9' * 5000}}}\n",
            f"2: ssh.max_sessions: found '{'9' * 59}…'; a smaller number is right",
        ),
        (LOCAL + "ssh: {login_grace_time: 0}\n", "2: ssh.login_grace_time: found 0; more than 0 is right"),
        (LOCAL + "ssh: {login_grace_time: inf}\n", "2: ssh.login_grace_time: found 'inf'; a finite number is right"),
        (LOCAL + "ssh: {login_grace_time: 1 minute}\n", "2: ssh.login_grace_time: found '1 minute'; a number is right"),
        (LOCAL + "ssh: {max_startups: {rate: 101}}\n", "2: ssh.max_startups.rate: found 101; at most 100 is right"),
        (
            LOCAL + "ssh: {banner: !!binary aGk=}\n",
            "2: ssh.banner: found a tag ('!...'); quotes around the value are right",
        ),
        (
            LOCAL + "ssh: {banner: !!int hunter2}\n",
            "2: ssh.banner: found !!int with something else; leaving it out is right",
        ),
        (
            LOCAL + "ssh: {banner: !!bool hunter2}\n",
            "2: ssh.banner: found !!bool with something else; leaving it out is right",
        ),
        (LOCAL + 'ssh: {banner: "a\\0b"}\n', "2: ssh.banner: found the control character '\\x00'; text is right"),
        (LOCAL + "? [a, b]\n: c\n", "2: the file: found a list as a name; a word is right"),
        (LOCAL + "ssh:\n  <<: hunter2\n", "2: ssh: found '<<' with something else than sections; <<: *name is right"),
        (
            LOCAL + "engines:\n- name: a\n  url: tcp://root:hunter2@a\n",
            "4: engines[0].url: found 'tcp://…@a'; unix:///var/run/docker.sock or tcp://host:2376 is right",
        ),
        (
            LOCAL + 'ssh: {listen: ["\\e]0;x\\a\\u202e:22"]}\n',
            f"2: ssh.listen[0]: found '\\x1b]0;x\\x07\\u202e:22'; {LISTEN}",
        ),
        (
            LOCAL + 'ssh: {"li\\esten": x}\n',
            "2: ssh.li\\x1bsten: there is no such option; did you mean listen?",
        ),
    ],
)
def test_a_wrong_value_is_named_with_line_option_what_was_found_and_what_is_right(
    problems: Problems, text: str, said: str
) -> None:
    assert problems(text) == [said]


def test_words_and_numbers_mean_what_they_look_like(load: Load) -> None:
    """YAML 1.1 would read false, 1342, 8 and a date."""
    config = load(
        "auth: {local: {}}\nssh: {max_sessions: 010, chacha20: yes}\n"
        "access: {rules: [{users: [no, 22:22, 2026-01-01, 0x10], apps: [on, '1']}]}\n"
    )
    (rule,) = config.access.rules
    assert rule.users == ("no", "22:22", "2026-01-01", "0x10")
    assert rule.apps == ("on", "1")
    assert config.ssh.max_sessions == 10
    assert config.ssh.chacha20 is True


def test_a_section_whose_options_are_all_commented_out_has_its_defaults(load: Load) -> None:
    config = load("auth:\n  local:\n    # file: x\n  ldap: ~\nssh:\n")
    assert config.auth.local is not None
    assert config.auth.ldap is None
    assert config.ssh.max_auth_tries == 6


def test_a_byte_order_mark_is_not_part_of_the_first_word(load: Load) -> None:
    assert load("\ufeff" + LOCAL).auth.local is not None


def test_anchors_and_merges_work_and_keep_their_lines(load: Load, problems: Problems) -> None:
    text = LOCAL + "engines:\n- &one\n  name: one\n  timeout: WAIT\n- <<: *one\n  name: two\n  url: tcp://two:2375\n"
    one, two = load(text.replace("WAIT", "3")).engines
    assert (one.timeout, two.timeout) == (3, 3)
    assert (two.name, two.url) == ("two", "tcp://two:2375")
    said = "timeout: found 'x'; a number is right"
    assert problems(text.replace("WAIT", "x")) == [f"5: engines[0].{said}", f"5: engines[1].{said}"]


def test_of_several_merged_sections_the_first_wins_and_the_own_value_over_all(load: Load) -> None:
    config = load(
        "auth: {local: &a {file: a}}\nrecording: &b {folder: b, max_bytes: 1}\n"
        "audit: {<<: [{file: x, stdout: false}, {file: y, stdout: true}], stdout: true}\n"
    )
    assert config.audit.file is not None
    assert config.audit.file.name == "x"
    assert config.audit.stdout is True


# ---- the environment and secrets ----


def test_text_is_completed_from_the_environment(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "2022")
    monkeypatch.setenv("TRIES", "3")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    config = load(
        LOCAL + "ssh:\n  listen: ['${HOST_UNSET:-[::1]}:${PORT}']\n  max_auth_tries: ${TRIES}\n"
        "  banner: '${UNSET:-a}${EMPTY:-b}${EMPTY}$${PORT}$PORT {user}'\n"
    )
    assert config.ssh.listen == ("[::1]:2022",)
    assert config.ssh.max_auth_tries == 3
    assert config.ssh.banner == "ab${PORT}$PORT {user}"


def test_what_comes_from_the_environment_is_text_and_not_printed(
    problems: Problems, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VALUE", "hunter2: [*x")
    assert problems(LOCAL + "ssh: {max_sessions: '${VALUE}'}\n") == [
        "2: ssh.max_sessions: found '${VALUE}'; a whole number is right"
    ]


@pytest.mark.parametrize("broken", ["${}", "${", "${A B}", "${1}", "${A:-x", "${A-x}"])
def test_a_broken_reference_to_the_environment_says_what_is_right(problems: Problems, broken: str) -> None:
    right = "${NAME} or ${NAME:-default} is right, or $${ for a plain ${"
    assert problems(LOCAL + f"ssh: {{banner: 'x {broken}'}}\n") == [
        f"2: ssh.banner: found '${{' without a name; {right}"
    ]


def test_a_secret_may_be_in_a_file_and_only_a_secret(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "ldap").write_bytes(b" hunter2\xc3\xa9 \n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    for secret in ("file:${CREDENTIALS_DIRECTORY}/ldap", "file:credentials/ldap"):
        config = load(
            LDAP + f"    bind_dn: cn=b\n    bind_password: '{secret}'\nssh: {{banner: 'file:credentials/ldap'}}\n"
        )
        assert config.auth.ldap is not None
        assert config.auth.ldap.bind_password is not None
        assert config.auth.ldap.bind_password.get_secret_value() == " hunter2é "
        assert config.ssh.banner == "file:credentials/ldap"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "can not be read: No such file or directory"),
        (b"", "is empty; the secret is right"),
        (b"\n", "is empty; the secret is right"),
        (b"hunter2\xff", "is not UTF-8; text is right"),
        (b"hunter2" * 10_000, "has more than 64 KiB; a secret is right"),
    ],
)
def test_a_secret_file_that_is_none_is_named(
    problems: Problems, tmp_path: Path, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    assert problems(LOCAL + "database:\n  url: file:secret\n") == [f"3: database.url: {tmp_path}/secret {said}"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("database: {url: hunter2}\n", "found a value that is not shown here; "),
        ("database: {url: postgresql://u:hunter2@h/d}\n", "the driver here is 'postgresql'"),
        ("database: {urll: hunter2}\n", "there is no such option; did you mean url?"),
        ("database: {url: [hunter2]}\n", "found a list; "),
        ("database: {url: {hunter2: hunter2}}\n", "found a section; "),
        ("database: hunter2\n", "found a single value; a section is right"),
    ],
)
def test_a_secret_is_never_printed(problems: Problems, text: str, said: str) -> None:
    (problem,) = problems(LOCAL + text)
    assert said in problem
    assert "hunter2" not in problem


def test_a_secret_is_in_no_text_of_the_configuration(load: Load) -> None:
    config = load(
        LDAP + "    bind_dn: cn=b\n    bind_password: hunter2\ndatabase: {url: 'postgresql+psycopg://u:hunter2@h/d'}\n"
    )
    assert config.database.url.get_secret_value() == "postgresql+psycopg://u:hunter2@h/d"
    for text in (repr(config), str(config), str(config.model_dump()), config.model_dump_json()):
        assert "hunter2" not in text


def test_no_secret_is_in_what_the_error_was_raised_from(load: Load) -> None:
    with pytest.raises(ConfigError) as caught:
        load(LDAP + "    bind_password: [hunter2]\n    member_of: {}\n")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in f"{caught.value.__context__} {caught.value.__cause__}"


# ---- paths ----


def test_relative_paths_start_at_the_configuration_files_folder(load: Load, tmp_path: Path) -> None:
    config = load("auth: {local: {file: sub/users.yaml}}\nrecording: {folder: /var/lib/x}\n")
    assert config.auth.local is not None
    assert config.auth.local.file == tmp_path / "sub/users.yaml"
    assert config.recording.folder == Path("/var/lib/x")
    assert config.ssh.host_keys == (tmp_path / "keys/ssh_host_ed25519_key", tmp_path / "keys/ssh_host_rsa_key")
    assert config.audit.file == tmp_path / "audit.jsonl"
    assert config.database.url.get_secret_value() == f"sqlite+aiosqlite:///{tmp_path}/bastion.db"


def test_they_do_when_the_configuration_is_named_by_a_relative_path_or_a_symlink(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").mkdir()
    (tmp_path / "real/config.yaml").write_text(LOCAL)
    (tmp_path / "link/config.yaml").symlink_to("../real/config.yaml")
    monkeypatch.chdir(tmp_path / "link")
    assert load_config(Path("config.yaml")).recording.folder == Path(os.path.realpath(tmp_path)) / "link/recordings"


def test_a_file_that_has_to_be_there_is_looked_for_beside_the_configuration(
    load: Load, problems: Problems, tmp_path: Path
) -> None:
    text = LOCAL + "engines: [{url: 'tcp://a:2376', tls: {ca: ca.pem, cert: cert.pem, key: .}}]\n"
    (tmp_path / "cert.pem").touch()
    right = "a file that can be read is right"
    assert problems(text) == [
        f"2: engines[0].tls.ca: found 'ca.pem'; {right} ({tmp_path}/ca.pem: No such file or directory)",
        f"2: engines[0].tls.key: found '.'; {right} ({tmp_path}: Is a directory)",
    ]
    (tmp_path / "ca.pem").touch()
    tls = load(text.replace("key: .", "key: cert.pem")).engines[0].tls
    assert tls is not None
    assert (tls.ca, tls.key) == (tmp_path / "ca.pem", tmp_path / "cert.pem")
