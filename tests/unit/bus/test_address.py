"""The address of a Redis is refused where it cannot be meant, and no refusal repeats it."""

from __future__ import annotations

import pytest

from app.bus.address import check

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/0",
        "redis://redis.internal",
        "redis://[::1]:6379",
        f"redis://haltline:{SECRET}@redis.internal:6379/0",
        f"redis://:{SECRET}@redis.internal/",
        "redis://haltline:a%40b%2Fc%23d%3Fe@redis.internal:6379/0",
        f"rediss://haltline:{SECRET}@redis.internal:6380/0?ssl_ca_certs=/etc/haltline/redis-ca.pem",
        f"unix://haltline:{SECRET}@/run/redis/redis.sock",
    ],
)
def test_what_can_be_meant_is_taken(url: str) -> None:
    """Every way to name a Redis is taken: with and without port, user, password, database and CA."""
    check(url)


@pytest.mark.parametrize(
    "url",
    [
        SECRET,
        f"http://{SECRET}@redis.internal",
        f"redis://haltline:{SECRET}/1@redis.internal:6379",
        f"redis://haltline:1/{SECRET}@redis.internal:6379",
        f"redis://haltline:{SECRET}#1@redis.internal:6379",
        f"redis://haltline:1?{SECRET}@redis.internal:6379",
        f"redis://{SECRET}#",
        f"redis://haltline:{SECRET}@",
        f"redis://haltline:{SECRET}@redis.internal:0",
        f"redis://haltline:{SECRET}@redis.internal:99999",
        f"redis://haltline:{SECRET}@redis.internal:6379/zero",
        f"redis://[{SECRET}",
        f"redis://:{SECRET}@redis.internal?socket_timeout=60",
        f"redis://:{SECRET}@redis.internal?ssl_ca_certs=ca.pem",
        f"rediss://:{SECRET}@redis.internal?ssl_cert_reqs=none",
        f"rediss://:{SECRET}@redis.internal?ssl_check_hostname=false",
        f"unix://:{SECRET}@",
        f"unix:///run/redis.sock?db={SECRET}",
    ],
)
def test_what_cannot_be_meant_is_refused_without_a_word_of_it(url: str) -> None:
    """An address that redis-py would read otherwise than meant is refused; the refusal holds no part of it."""
    with pytest.raises(ValueError, match=r"redis://|rediss://|unix://|%XX") as refused:
        check(url)
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__context__ is None
