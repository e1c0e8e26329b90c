"""Where the service is and who asks: flags before environment before the configuration file.

A token is taken from the environment or from a file, never from an argument: arguments are read by every user of a
machine, and stay in the shell's history.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from haltline.address import Address, parse_addresses
from haltline.cli.exits import Ended, Exit
from haltline.errors import ConfigurationError
from haltline.switch import namespace_of, plain_http_of
from haltline.tls import Trust

_KNOWN: Final = ("url", "token", "ca", "plain_http")
_MAX_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the service is and who asks.

    Attributes:
        addresses: where the service answers, in the order in which to try.
        token: the token; it is in no ``repr``.
        namespace: the namespace that the token is of.
        trust: whose certificates are believed.
    """

    addresses: tuple[Address, ...]
    token: str = field(repr=False)
    namespace: str
    trust: Trust = field(repr=False, compare=False)

    @property
    def each(self) -> tuple[Settings, ...]:
        """These settings once for each address, with that one alone."""
        return tuple(replace(self, addresses=(address,)) for address in self.addresses)


def resolve(
    environment: Mapping[str, str],
    *,
    url: str | None,
    token_file: str | None,
    ca: str | None = None,
    plain_http: bool = False,
    warn: Callable[[str], None],
) -> Settings:
    """Return the settings: from flags, else from the environment, else from the configuration file.

    The file is read only if something is still missing, and must be in order only if it has to give the address or the
    token: a broken file must not stand in the way of a kill.

    Args:
        environment: HALTLINE_URL, HALTLINE_TOKEN, HALTLINE_CA, HALTLINE_PLAIN_HTTP, HALTLINE_CONFIG, and what says
            where a home folder is.
        url: the addresses from the command line.
        token_file: a file that holds nothing but a token, from the command line.
        ca: a file of CAs to trust, from the command line.
        plain_http: whether the command line permits plain http to another machine.
        warn: called with what an operator should mend, such as a token that others can read.

    Raises:
        Ended: something is missing or malformed; the token is never repeated.
    """
    given = url or environment.get("HALTLINE_URL")
    token = _token_from(Path(token_file), warn) if token_file else environment.get("HALTLINE_TOKEN")
    ca = ca or environment.get("HALTLINE_CA") or None
    permitted = True if plain_http else _permitted(environment)
    filed = _File()
    if not given or not token:
        filed = _from_file(environment, warn, token=not token)
    elif (ca is None and "https:" in given.lower()) or (permitted is None and _beyond(given)):
        try:
            filed = _from_file(environment, warn, token=False)
        except Ended as ended:
            warn(f"{ended.said[0]}; passed over")
    urls = given or filed.url
    token = token or filed.token
    missing = []
    if not urls:
        missing.append("no address: use --url https://host:port, HALTLINE_URL, or url in the configuration file")
    if not token:
        missing.append("no token: use HALTLINE_TOKEN, --token-file, or token in the configuration file")
    if not urls or not token:
        raise Ended(Exit.USAGE, *missing)
    try:
        addresses = parse_addresses(urls, plain_http=bool(filed.plain_http if permitted is None else permitted))
        needed = any(address.tls for address in addresses)  # a file that is not used stands in nobody's way
        return Settings(addresses, token, namespace_of(token), Trust((ca or filed.ca) if needed else None))
    except ConfigurationError as error:
        raise Ended(Exit.USAGE, str(error)) from None


def _beyond(urls: str) -> bool:
    """Return whether these addresses need a permission that is not there yet."""
    try:
        parse_addresses(urls, plain_http=False)
    except ConfigurationError:
        return True
    return False


def _permitted(environment: Mapping[str, str]) -> bool | None:
    """Return what HALTLINE_PLAIN_HTTP says; None where it says nothing."""
    if not environment.get("HALTLINE_PLAIN_HTTP"):
        return None
    try:
        return plain_http_of(environment)
    except ConfigurationError as error:
        raise Ended(Exit.USAGE, str(error)) from None


def config_path(environment: Mapping[str, str]) -> Path | None:
    """Return where the configuration file is looked for; None where there is no home folder."""
    named = environment.get("HALTLINE_CONFIG")
    if named:
        return Path(named)
    home = environment.get("HOME")
    return Path(home) / ".config" / "haltline" / "config.toml" if home else None


@dataclass(frozen=True, slots=True)
class _File:
    """What the configuration file says; None where it says nothing."""

    url: str | list[str] | None = None
    token: str | None = field(default=None, repr=False)
    ca: str | None = None
    plain_http: bool | None = None


def _from_file(environment: Mapping[str, str], warn: Callable[[str], None], *, token: bool) -> _File:
    """Return what the configuration file says.

    Args:
        environment: says where it is.
        warn: called with what an operator should mend.
        token: whether its token is going to be used.
    """
    path = config_path(environment)
    if path is None or (not environment.get("HALTLINE_CONFIG") and not path.exists()):
        return _File()
    data, shared = _read(path)
    try:
        members = tomllib.loads(data)
    except tomllib.TOMLDecodeError as error:
        raise Ended(Exit.USAGE, f"{path} is not TOML: {error}") from None
    for name, value in members.items():
        if name not in _KNOWN:
            warn(f"{path}: {name} is not a setting and is passed over; the settings are {', '.join(_KNOWN)}")
        elif name == "plain_http":
            if not isinstance(value, bool):
                raise Ended(Exit.USAGE, f"{path}: plain_http is neither true nor false")
        elif name == "url" and isinstance(value, list):
            if not all(isinstance(each, str) for each in value):
                raise Ended(Exit.USAGE, f'{path}: url is not a list of texts: write url = ["...", "..."]')
        elif not isinstance(value, str):
            raise Ended(Exit.USAGE, f'{path}: {name} is not text: write {name} = "..."')
    if token and shared and "token" in members:
        _warn_shared(path, warn)
    return _File(**{name: value for name, value in members.items() if name in _KNOWN})


def _token_from(path: Path, warn: Callable[[str], None]) -> str:
    data, shared = _read(path)
    if shared:
        _warn_shared(path, warn)
    return data.strip()


def _read(path: Path) -> tuple[str, bool]:
    """Return a small file's text, and whether others than its owner can read it."""
    try:
        with path.open("rb") as file:
            shared = bool(os.fstat(file.fileno()).st_mode & (stat.S_IRGRP | stat.S_IROTH))
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise Ended(Exit.USAGE, f"{path} cannot be read: {error.strerror or error}") from None
    if len(data) > _MAX_BYTES:
        raise Ended(Exit.USAGE, f"{path} is larger than {_MAX_BYTES} bytes: it is not what it should be")
    try:
        return data.decode("utf-8"), shared
    except UnicodeDecodeError:
        raise Ended(Exit.USAGE, f"{path} is not UTF-8 text") from None


def _warn_shared(path: Path, warn: Callable[[str], None]) -> None:
    warn(f"{path} holds a token and can be read by other users of this machine: chmod 600 {path}")
