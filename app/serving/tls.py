"""The service's own certificate: looked at before serving, taken up anew when its files change, spoken TLS by."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

HANDSHAKE_S: Final = 2.0
"""How long a caller may take for the TLS handshake, seconds."""

WARN_DAYS: Final = 14
"""A certificate that ends sooner is warned of, days."""

_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL (x509_vfy.h), which the ssl module has no name for."""


class Unusable(Exception):
    """A certificate and a key that no TLS can be spoken by; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a certificate says of itself.

    Attributes:
        names: for whom it is: host names and addresses, or its subject where it lists none.
        ends: until when it is valid.
    """

    names: tuple[str, ...]
    ends: datetime

    def days_left(self, now: datetime) -> int:
        """Return for how many whole days it is valid still; below 0 if it is not."""
        return (self.ends - now).days


def context_of(cert: str, key: str) -> ssl.SSLContext:
    """Return what TLS is spoken by.

    Args:
        cert: the file of the certificate chain, the service's own certificate first.
        key: the file of its private key.

    Raises:
        Unusable: one of them cannot be read, is something else, or they do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    for name, file in (("HALTLINE_TLS_CERT", cert), ("HALTLINE_TLS_KEY", key)):
        try:
            with Path(file).open("rb"):
                pass
        except OSError as error:
            raise Unusable(f"{name}: {file} cannot be read: {error.strerror}") from None
    asked = False

    def no_passphrase() -> str:
        nonlocal asked
        asked = True
        return ""

    try:
        context.load_cert_chain(cert, key, password=no_passphrase)
    except (ssl.SSLError, ValueError) as error:
        if asked:
            raise Unusable(f"HALTLINE_TLS_KEY: {key} has a passphrase: give a key without one") from None
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise Unusable(
                f"HALTLINE_TLS_KEY: {key} is not the key of the first certificate in {cert}: give the pair, the "
                f"service's own certificate before those of its CAs"
            ) from None
        raise Unusable(
            f"HALTLINE_TLS_CERT and HALTLINE_TLS_KEY: {cert} and {key} must be PEM: a certificate chain, and the "
            f"private key of its first certificate"
        ) from None
    return context


def shown(cert: str, key: str) -> Shown:
    """Return what a certificate says of itself.

    Raises:
        Unusable: TLS cannot be spoken by it.
    """
    # The ssl module decodes a certificate only for whoever verified it: so a handshake with ourselves.
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    server = context_of(cert, key)
    client.load_verify_locations(cafile=cert)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(back, there)
    theirs = server.wrap_bio(there, back, server_side=True)
    for _ in range(4):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as error:
                raise Unusable(f"HALTLINE_TLS_CERT: {cert}: {error.verify_message}") from None
            except ssl.SSLError as error:
                raise Unusable(f"HALTLINE_TLS_CERT: {cert}: {error.reason or error}") from None
    found: Any = ours.getpeercert() or {}
    names = tuple(value for _, value in found.get("subjectAltName", ()))
    subject = ", ".join(f"{name}={value}" for part in found.get("subject", ()) for name, value in part)
    return Shown(names or (subject,), datetime.fromtimestamp(ssl.cert_time_to_seconds(found["notAfter"]), UTC))


class Certificate:
    """The certificate that connections are being spoken TLS by, always as its files have it.

    Args:
        cert: the file of the certificate chain.
        key: the file of its private key.

    Raises:
        Unusable: TLS cannot be spoken by them.
    """

    def __init__(self, cert: str, key: str) -> None:
        self._files = (cert, key)
        self._stamp = self._stamped()
        self._context = context_of(cert, key)

    def wrapped(self, client: Any) -> Any:
        """Return TLS on a connection; the handshake is still to be done.

        Raises:
            OSError: the connection has ended.
        """
        stamp = self._stamped()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = context_of(*self._files)
            except Unusable as error:
                # As between the writing of the one file and of the other: the next change is looked at again.
                logging.getLogger("haltline.tls").warning("the former certificate is kept to: %s", error)
        return self._context.wrap_socket(client, server_side=True, do_handshake_on_connect=False)

    def _stamped(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(map(_stamp, self._files))


def _stamp(file: str) -> tuple[int, int, int] | None:
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
