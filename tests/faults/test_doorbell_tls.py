"""A Redis behind TLS: heard where its certificate is good, and never believed where it is not."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from app.bus.redis import RedisDoorbell
from app.service.doorbell import MAYBE_MISSED, DoorbellUnavailable
from tests.support.ear import Ear
from tests.support.valkey import Valkey


class TlsFront:
    """Ends TLS in front of a server: the wheel's Valkey speaks none."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self._behind = port
        self._context = context
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._open: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            client.settimeout(5)
            with (
                self._context.wrap_socket(client, server_side=True) as outer,
                socket.create_connection(("127.0.0.1", self._behind), timeout=5) as inner,
            ):
                self._open += [outer, inner]
                back = threading.Thread(target=_copy, args=(inner, outer), daemon=True)
                back.start()
                _copy(outer, inner)
                back.join(5)

    def close(self) -> None:
        """Stop listening, and hang up on everybody."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._accepting.join(5)


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def authority() -> trustme.CA:
    """Return a certificate authority of this test."""
    return trustme.CA()


@pytest.fixture
def front(authority: trustme.CA) -> Iterator[TlsFront]:
    """Yield a Redis behind TLS, with a certificate for 127.0.0.1 and for no name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with Valkey(user="haltline", password="secret") as valkey:
        made = TlsFront(valkey.port, context)
        yield made
        made.close()


def test_rings_go_through_tls(front: TlsFront, authority: trustme.CA, tmp_path: Path) -> None:
    """With rediss:// and the CA's file in the address, a doorbell rings and is heard, as its ACL user."""
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    bell = RedisDoorbell(f"rediss://haltline:secret@127.0.0.1:{front.port}/0?ssl_ca_certs={ca}", "default")
    ear = Ear()
    bell.listen(ear)
    bell.start()
    assert ear.hears(MAYBE_MISSED, within_s=10)
    bell.ring(4)
    assert ear.hears(4, within_s=10)
    bell.close()


def test_a_certificate_of_a_stranger_is_refused(front: TlsFront, tmp_path: Path) -> None:
    """A server whose certificate no authority of ours has issued is not talked to, and not told the password."""
    ca = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(ca)
    for url in (
        f"rediss://haltline:secret@127.0.0.1:{front.port}/0",
        f"rediss://haltline:secret@127.0.0.1:{front.port}/0?ssl_ca_certs={ca}",
    ):
        with pytest.raises(DoorbellUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            RedisDoorbell(url, "default").ring(1)


def test_a_certificate_for_another_host_is_refused(front: TlsFront, authority: trustme.CA, tmp_path: Path) -> None:
    """A certificate of the right authority for another name is refused."""
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    with pytest.raises(DoorbellUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        RedisDoorbell(f"rediss://haltline:secret@localhost:{front.port}/0?ssl_ca_certs={ca}", "default").ring(1)
