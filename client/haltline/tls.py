"""TLS on a connection, every wait of it bounded by the deadline of the exchange: the handshake, too, and half a record.

``ssl`` is imported by the first https address: plain http does without, and importing it costs 8 ms.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from haltline.errors import ConfigurationError
from haltline.link import Deadline, Link

if TYPE_CHECKING:
    import ssl

_RECORD: Final = 64 * 1024

_UNTRUSTED: Final = frozenset({2, 18, 19, 20, 21, 24, 27})
"""OpenSSL's codes (x509_vfy.h) of a chain that does not end at a CA that is trusted here."""


class Trust:
    """Whose certificates are believed. There is no way to believe all of them.

    Args:
        ca: a PEM file of CAs to believe instead of the system's.

    Raises:
        ConfigurationError: ``ca`` cannot be read, or holds no certificate.
    """

    def __init__(self, ca: str | None = None) -> None:
        self._ca = ca
        self._context: ssl.SSLContext | None = None
        if ca is not None:
            self._context = self._made()

    @property
    def ca(self) -> str | None:
        """The file of the CAs that are believed; None for the system's."""
        return self._ca

    def secured(self, link: Link, host: str, deadline: Deadline) -> Secured:
        """Return TLS on a connection, once its other end has proven that it is ``host``.

        Raises:
            OSError: it has not, or not in time; the text says why.
        """
        import ssl

        try:
            if self._context is None:
                self._context = self._made()
            return Secured(link, self._context, host, deadline)
        except ConfigurationError as error:
            raise OSError(str(error)) from error
        except ssl.SSLCertVerificationError as error:
            self._context = None  # whoever mends the file of CAs need not start this process anew
            raise OSError(_doubted(error, host)) from error
        except ssl.SSLError as error:
            raise OSError(_failed(error)) from error

    def _made(self) -> ssl.SSLContext:
        import ssl

        # Not create_default_context: that also writes the session's keys to a file that the environment names.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and host name
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._ca is None:
            context.load_default_certs()
            return context
        try:
            context.load_verify_locations(cafile=self._ca)
        except ssl.SSLError:
            raise ConfigurationError(f"{self._ca} holds no certificate in PEM form: give the file of the CA") from None
        except (OSError, ValueError) as error:
            told = getattr(error, "strerror", None) or str(error)
            raise ConfigurationError(f"{self._ca}, the file of the CA, cannot be read: {told}") from None
        return context


class Secured:
    """TLS on a connection.

    Args:
        link: the connection.
        context: whom to believe.
        host: whom the other end has to prove to be.
        deadline: for how long the handshake may last.

    Raises:
        ssl.SSLError: the handshake failed.
        OSError: it broke off, or was not over in time.
    """

    def __init__(self, link: Link, context: ssl.SSLContext, host: str, deadline: Deadline) -> None:
        import ssl

        self._link = link
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush(deadline)
                if not self._fill(deadline):
                    raise ConnectionAbortedError("the connection ended in the TLS handshake") from None
            except ssl.SSLError:
                with suppress(OSError):
                    self._flush(deadline)  # the alert that tells the other end why
                raise
            else:
                break
        self._flush(deadline)

    def send(self, data: bytes, deadline: Deadline) -> None:
        """Send all of ``data``.

        Raises:
            OSError: it cannot be, or not in time.
        """
        self._tls.write(data)
        self._flush(deadline)

    def recv(self, deadline: Deadline) -> bytes:
        """Return what comes next, empty at the end that the other side announced.

        Raises:
            OSError: nothing comes, or not in time.
        """
        import ssl

        while True:
            try:
                return self._tls.read(_RECORD)
            except ssl.SSLWantReadError:
                self._flush(deadline)
                if not self._fill(deadline):
                    # Not announced: anybody on the way could have cut it off here.
                    raise ConnectionAbortedError("the connection ended without a word") from None
            except ssl.SSLZeroReturnError:
                return b""

    def _fill(self, deadline: Deadline) -> bool:
        data = self._link.recv(deadline)
        self._incoming.write(data)
        return bool(data)

    def _flush(self, deadline: Deadline) -> None:
        if self._outgoing.pending:
            self._link.send(self._outgoing.read(), deadline)


def _doubted(error: ssl.SSLCertVerificationError, host: str) -> str:
    code, said = error.verify_code, error.verify_message
    if code == 10:
        return "its certificate has expired: renew it on the service"
    if code == 9:
        return "its certificate is not valid yet: compare the clocks of this machine and of the service"
    if code in (62, 64):
        return f"its certificate is not for {host}: use the name that it was made for, or have one made for {host}"
    if code in _UNTRUSTED:
        return (
            f"its certificate is not from a CA that is trusted here ({said}): name that CA's file by ca=, HALTLINE_CA "
            f"or --ca"
        )
    return f"its certificate is refused: {said}"


def _failed(error: ssl.SSLError) -> str:
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if error.reason == "WRONG_VERSION_NUMBER":
        return "what answers does not speak TLS: is it an http:// address?"
    return f"no TLS: {reason}"
