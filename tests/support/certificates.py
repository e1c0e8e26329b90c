"""A CA of a test, and what it signs: good certificates, expired ones, and ones for somebody else."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import trustme

from tests.support.ports import LOOPBACK

_LONG_AGO: Final = datetime(2020, 1, 1, tzinfo=UTC)


class Authority:
    """A CA.

    Args:
        folder: where its files go.
        name: what they are called.

    Attributes:
        file: its own certificate, PEM: what a client trusts.
    """

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._ca = trustme.CA()
        self._folder = folder
        self._name = name
        self.file = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.file))

    def issue(self, *hosts: str, ends: datetime | None = None) -> trustme.LeafCert:
        """Return a certificate.

        Args:
            hosts: for whom; for 127.0.0.1 by default.
            ends: until when it is valid; for a year by default.
        """
        begins = _LONG_AGO if ends is not None else None
        return self._ca.issue_cert(*(hosts or (LOOPBACK,)), not_before=begins, not_after=ends)

    def expired(self) -> trustme.LeafCert:
        """Return a certificate that was valid until yesterday."""
        return self.issue(ends=datetime.now(UTC) - timedelta(days=1))

    def files(self, leaf: trustme.LeafCert, name: str = "server") -> tuple[Path, Path]:
        """Write a certificate and its key, and return where."""
        chain, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        chain.write_bytes(b"".join(each.bytes() for each in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(str(key))
        return chain, key


def serving(leaf: trustme.LeafCert, *, newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Return what a server speaks TLS by.

    Args:
        leaf: its certificate.
        newest: the newest version that it speaks; the newest there is by default.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if newest is not None:
        context.minimum_version = min(newest, context.minimum_version)
        context.maximum_version = newest
    leaf.configure_cert(context)
    return context
