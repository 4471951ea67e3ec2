import pytest

from bastion.commands.prompts import KNOWN, Prompts, asks_for_secret, continues, joins, looks_like_prompt


@pytest.mark.parametrize("prompt", ["> ", "... ", "   ...> ", "quote> ", "for then> "])
def test_prompts_for_the_rest_of_a_command(prompt):
    assert continues(prompt)
    assert joins(prompt) == ("..." not in prompt)


@pytest.mark.parametrize("text", ["$ ", "root@web01:~# ", "~/proj \u276f ", ">>> ", "mysql> ", "[1]: "])
def test_what_looks_like_a_prompt(text):
    assert looks_like_prompt(text)


@pytest.mark.parametrize("text", ["Password: ", "Your name: ", "Continue? (y/n): ", "Name"])
def test_questions_are_none(text):
    assert not looks_like_prompt(text)


@pytest.mark.parametrize(
    "text", ["Password: ", "[sudo] password for alice: ", "Enter passphrase (empty for none): ", "PIN:"]
)
def test_what_asks_for_a_secret(text):
    assert asks_for_secret(text)


@pytest.mark.parametrize("text", ["$ read -s 'P?Password:", "drwxr-xr-x passwd", "passwd: done", " " * 5000 + "x"])
def test_what_does_not(text):
    assert not asks_for_secret(text)


def test_a_known_prompt_is_known_again_where_only_names_and_numbers_differ():
    prompts = Prompts()
    prompts.learn("alice@web01:~/src$ ")
    assert prompts.match("alice@web01:~/src$ ls") == len("alice@web01:~/src$ ")
    assert prompts.match("alice@web01:/tmp$ ls $HOME") == len("alice@web01:/tmp$ ")
    assert prompts.match("total 12") is None
    assert prompts.match("> x") is None
    assert prompts.match("> x", continuation=True) == 2


def test_the_newest_are_remembered_and_continuations_are_not():
    prompts = Prompts()
    for number in range(KNOWN + 5):
        prompts.learn(f"{number}$$ ")
    prompts.learn("> ")
    prompts.learn("x" * 1000 + "$ ")
    assert "0$$ " not in prompts
    assert f"{KNOWN + 4}$$ " in prompts
    assert "> " not in prompts
