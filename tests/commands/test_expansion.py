import pytest

from bastion.commands.expansion import is_expansion


@pytest.mark.parametrize(
    ("typed", "expanded", "previous"),
    [
        ("!!", "ls -l", "ls -l"),
        ("sudo !!", "sudo ls -l", "ls -l"),
        ("echo !$ !^ end", "echo b a end", "ls a b"),
        ("^one^two", "echo two", "echo one"),
        ("!ls:p", "ls -l", ""),
    ],
)
def test_what_a_line_became(typed, expanded, previous):
    assert is_expansion(typed, expanded, previous)


@pytest.mark.parametrize(
    ("typed", "below", "previous"),
    [
        ("echo hi!", "hi!", ""),
        ("echo 'a!b'", "a!b", ""),
        ("sudo !!", "uid=0(root)", "id"),
        ("^one^two", "two", "echo one"),
        ("!a y " * 200, "x " * 5000, ""),
    ],
)
def test_what_it_did_not(typed, below, previous):
    assert not is_expansion(typed, below, previous)
