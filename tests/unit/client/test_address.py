"""What a service's URL means, and where a token may be sent to."""

from __future__ import annotations

import pytest

from haltline import ConfigurationError, KillSwitch
from haltline.address import Address, parse_address, parse_addresses

TOKEN = f"hlt_default_abcdefghijkl_{'S' * 43}crc123"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://h", Address("h", 80)),
        ("https://h", Address("h", 443, tls=True)),
        ("HTTPS://H.example:8787/", Address("h.example", 8787, tls=True)),
        ("http://[::1]:1/a/b/", Address("::1", 1, "/a/b")),
    ],
)
def test_addresses(url: str, address: Address) -> None:
    """What a service's URL means; an IPv6 host keeps its brackets in the Host header."""
    assert parse_address(url) == address
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "url",
    [
        "h:80", "ftp://h", "http://", "https://", "http://h:0", "http://h:65536", "http://h:x", "http://h/a b",
        "http://h/ä", "http://ä.example", "http://h/?a=b", "https://h/#a", "http://h/\x00", "//h",
    ],
)  # fmt: skip
def test_addresses_that_cannot_work_are_refused(url: str) -> None:
    """At once, not by a thread that dies at its first request."""
    with pytest.raises(ConfigurationError):
        parse_address(url)


@pytest.mark.parametrize("url", ["http://u:hunter2@h", "ftp://u:hunter2@h", "http://u:hunter2@h:bad"])
def test_credentials_in_an_address_are_refused_and_not_repeated(url: str) -> None:
    """Whatever else is wrong with it."""
    with pytest.raises(ConfigurationError) as caught:
        parse_addresses(f"https://one,{url}", plain_http=True)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "given", ["https://a:1,https://b", " https://a:1 , https://b:443/ ", ["https://a:1", "https://b"]]
)
def test_several_addresses_keep_their_order(given: str | list[str]) -> None:
    """Separated by commas or in a sequence; one that is named twice counts once."""
    assert [*map(str, parse_addresses(given, plain_http=False))] == ["https://a:1", "https://b:443"]
    assert len(parse_addresses(["https://a", "https://a"], plain_http=False)) == 1


@pytest.mark.parametrize("given", ["", ",", "https://a,", "https://a,,https://b", [], ["https://a", ""]])
def test_an_empty_address_is_refused(given: str | list[str]) -> None:
    """It is a list that was put together wrongly, and may lack the very address that is needed."""
    with pytest.raises(ConfigurationError, match="empty"):
        parse_addresses(given, plain_http=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.255.255", "[::1]", "localhost", "LOCALHOST"])
def test_plain_http_stays_on_this_machine(host: str) -> None:
    """There nobody can listen who could not read the token anyway."""
    assert parse_addresses(f"http://{host}:8787", plain_http=False)


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1", "0.0.0.0", "haltline.example", "localhost.example", "127.0.0.1.example", "127.0.0.256", "127.1",
        "127.0.0.01", "[::]", "[::ffff:127.0.0.1]", "128.0.0.1", "localhost.",
    ],
)  # fmt: skip
def test_plain_http_beyond_it_is_refused_unless_permitted(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the argument or by the variable; the message says how, and that https needs no permission."""
    url = f"http://{host}:8787"
    with pytest.raises(ConfigurationError, match="HALTLINE_PLAIN_HTTP=1") as caught:
        KillSwitch(["https://fine.example", url], token=TOKEN)
    assert "https://" in str(caught.value)
    KillSwitch(url, token=TOKEN, plain_http=True)
    monkeypatch.setenv("HALTLINE_PLAIN_HTTP", "1")
    KillSwitch(url, token=TOKEN)
    with pytest.raises(ConfigurationError):
        KillSwitch(url, token=TOKEN, plain_http=False)


def test_a_permission_that_is_unclear_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither true nor yes is guessed at."""
    monkeypatch.setenv("HALTLINE_PLAIN_HTTP", "yes")
    with pytest.raises(ConfigurationError, match="write 1"):
        KillSwitch("http://10.0.0.1", token=TOKEN)
