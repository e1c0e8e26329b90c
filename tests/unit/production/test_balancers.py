"""The load balancers: two lanes with a front port each, streams passed on as they come, nothing sent twice."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import trustme

from app.domain.promises import TTL_MAX_MS
from tests.unit.production.files import PRODUCTION

HAPROXY = (PRODUCTION / "haproxy.cfg").read_text(encoding="utf-8")
NGINX = (PRODUCTION / "nginx.conf").read_text(encoding="utf-8")
BACKENDS = {"control": ["control-1:8701", "control-2:8701"], "worker": ["worker-1:8711", "worker-2:8711"]}


def installed(name: str) -> str:
    """Return the path of a program, or skip the test."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed: its configuration is checked by its words only")
    return found


def localised(text: str, folder: Path) -> str:
    """Return a configuration with hosts that can be resolved here, and certificates that are there."""
    issued = trustme.CA().issue_cert("localhost")
    certificate, key = issued.cert_chain_pems[0].bytes(), issued.private_key_pem.bytes()
    (folder / "tls.crt").write_bytes(certificate)
    (folder / "tls.key").write_bytes(key)
    (folder / "tls.pem").write_bytes(certificate + key)
    return re.sub(r"(?:control|worker)-([12]):", r"127.0.0.\1:", text).replace("/etc/haltline", str(folder))


def test_haproxy_takes_it(tmp_path: Path) -> None:
    """``haproxy -c`` finds nothing wrong."""
    program = installed("haproxy")
    (tmp_path / "haproxy.cfg").write_text(localised(HAPROXY, tmp_path), encoding="utf-8")
    done = subprocess.run([program, "-c", "-f", tmp_path / "haproxy.cfg"], capture_output=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_nginx_takes_it(tmp_path: Path) -> None:
    """``nginx -t`` finds nothing wrong."""
    program = installed("nginx")
    (tmp_path / "nginx.conf").write_text(localised(NGINX, tmp_path), encoding="utf-8")
    done = subprocess.run(
        [program, "-t", "-c", tmp_path / "nginx.conf", "-g", f"pid {tmp_path}/nginx.pid;"],
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert b"syntax is ok" in done.stderr, done.stderr.decode()


def test_haproxy_has_the_servers_of_each_lane() -> None:
    """Each lane has a front port of its own and the servers of the compose file behind it."""
    assert re.findall(r"^    bind :(\d+)", HAPROXY, re.MULTILINE) == ["8787", "8788"]
    found = re.findall(r"^backend (\w+)\n((?:    server .*\n?)+)", HAPROXY, re.MULTILINE)
    assert {name: re.findall(r"server \S+ (\S+)", lines) for name, lines in found} == BACKENDS


def test_nginx_has_the_servers_of_each_lane() -> None:
    """Each lane has a front port of its own and the servers of the compose file behind it."""
    assert re.findall(r"listen (\d+) ssl;", NGINX) == ["8787", "8788"]
    found = re.findall(r"upstream (\w+) \{(.*?)\}", NGINX, re.DOTALL)
    assert {name: re.findall(r"server (\S+) ", block) for name, block in found} == BACKENDS
    assert re.findall(r"proxy_pass http://(\w+);", NGINX) == ["control", "worker"]


def test_a_silence_of_ttl_is_borne() -> None:
    """No time-out of a balancer ends a stream that is as quiet as the longest ttl lets it be."""
    times = re.findall(r"timeout (?:server|client) (\d+)s", HAPROXY) + re.findall(r"proxy_read_timeout (\d+)s", NGINX)
    assert len(times) == 3
    assert all(int(each) * 1_000 > 2 * TTL_MAX_MS for each in times)


def test_nothing_is_kept_or_gathered() -> None:
    """Frames leave as they come, and no lease is ever answered from a cache."""
    for words in ("proxy_buffering off;", "proxy_cache off;", "gzip off;", "proxy_http_version 1.1;"):
        assert words in NGINX
    assert "option http-no-delay" in HAPROXY
    for text in (HAPROXY, NGINX):
        assert not re.search(r"^\s*(?:proxy_cache_path|http-request cache-use|compression)", text, re.MULTILINE)


def test_nothing_is_sent_twice() -> None:
    """A balancer tries another server where it could not connect, and never sends a request a second time."""
    assert re.findall(r"^    retry-on (.+)$", HAPROXY, re.MULTILINE) == ["conn-failure"]
    assert "proxy_next_upstream error timeout;" in NGINX
    assert not re.search(r"^\s*proxy_next_upstream .*non_idempotent", NGINX, re.MULTILINE)


def test_a_slow_request_is_not_passed_on() -> None:
    """A request comes as a whole within seconds, or a node never sees it."""
    assert "option http-buffer-request" in HAPROXY
    assert "timeout http-request 5s" in HAPROXY
    for words in ("client_header_timeout 5s;", "client_body_timeout 5s;", "proxy_request_buffering on;"):
        assert words in NGINX


def test_a_node_that_is_not_ready_is_left_out() -> None:
    """HAProxy asks /readyz, which is 503 where leases are not granted."""
    assert "uri /readyz" in HAPROXY
    assert "http-check expect status 200" in HAPROXY
    assert re.search(r"default-server check inter \d+ms", HAPROXY)
