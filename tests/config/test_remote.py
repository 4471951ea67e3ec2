import pytest

from bastion.config import why_not_url


@pytest.mark.parametrize(
    "url",
    [
        "https://sso.example.org",
        "https://[::1]:8443/a?p=b",
        "http://127.0.0.1:80/",
        "http://[::1]",
        "http://localhost/a",
    ],
)
def test_right(url: str) -> None:
    assert why_not_url(url, allow_cleartext=False) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sso.example.org",
        "ldaps://sso",
        "https://",
        "https:///path",
        "https://sso:99999",
        "https://sso:x",
        "https://[::1",
        "https://user@sso",
        "https://user:password@sso",
        "https://s so",
        "https://sso/\n",
        "https://sso/\x1b[2J",
        "https://ßso",
        "http://sso.example.org",
        "http://127.0.0.1.example.org",
        "http://localhost.example.org",
        "http://0.0.0.0",
    ],
    ids=ascii,
)
def test_wrong(url: str) -> None:
    assert "is right" in str(why_not_url(url, allow_cleartext=False))


def test_cleartext_where_it_is_meant() -> None:
    assert why_not_url("http://sso.example.org", allow_cleartext=True) is None
    assert why_not_url("ftp://sso.example.org", allow_cleartext=True) is not None
