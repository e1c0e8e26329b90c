"""Where the service is and who asks: flags before environment before the configuration file.

A token is taken from the environment or from a file, never from an argument: arguments are read by every user of a
machine, and stay in the shell's history.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from haltline.cli.exits import Ended, Exit
from haltline.errors import ConfigurationError
from haltline.switch import namespace_of
from haltline.transport import Address, parse_address

_KNOWN: Final = frozenset({"url", "token"})
_MAX_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the service is and who asks.

    Attributes:
        address: the service's address.
        token: the token; it is in no ``repr``.
        namespace: the namespace that the token is of.
    """

    address: Address
    token: str = field(repr=False)
    namespace: str


def resolve(
    environment: Mapping[str, str], *, url: str | None, token_file: str | None, warn: Callable[[str], None]
) -> Settings:
    """Return the settings: from flags, else from the environment, else from the configuration file.

    The file is read only if something is still missing: a broken file must not stand in the way of a kill.

    Args:
        environment: HALTLINE_URL, HALTLINE_TOKEN, HALTLINE_CONFIG, and what says where a home folder is.
        url: the address from the command line.
        token_file: a file that holds nothing but a token, from the command line.
        warn: called with what an operator should mend, such as a token that others can read.

    Raises:
        Ended: something is missing or malformed; the token is never repeated.
    """
    address = url or environment.get("HALTLINE_URL")
    token = _token_from(Path(token_file), warn) if token_file else environment.get("HALTLINE_TOKEN")
    if not address or not token:
        filed = _from_file(environment, warn)
        address = address or filed.get("url")
        token = token or filed.get("token")
    missing = []
    if not address:
        missing.append("no address: use --url http://host:port, HALTLINE_URL, or url in the configuration file")
    if not token:
        missing.append("no token: use HALTLINE_TOKEN, --token-file, or token in the configuration file")
    if not address or not token:
        raise Ended(Exit.USAGE, *missing)
    try:
        return Settings(parse_address(address), token, namespace_of(token))
    except ConfigurationError as error:
        raise Ended(Exit.USAGE, str(error)) from None


def config_path(environment: Mapping[str, str]) -> Path | None:
    """Return where the configuration file is looked for; None where there is no home folder."""
    named = environment.get("HALTLINE_CONFIG")
    if named:
        return Path(named)
    home = environment.get("HOME")
    return Path(home) / ".config" / "haltline" / "config.toml" if home else None


def _from_file(environment: Mapping[str, str], warn: Callable[[str], None]) -> dict[str, str]:
    path = config_path(environment)
    if path is None or (not environment.get("HALTLINE_CONFIG") and not path.exists()):
        return {}
    data, shared = _read(path)
    try:
        members = tomllib.loads(data)
    except tomllib.TOMLDecodeError as error:
        raise Ended(Exit.USAGE, f"{path} is not TOML: {error}") from None
    found: dict[str, str] = {}
    for name, value in members.items():
        if name not in _KNOWN:
            warn(f"{path}: {name} is not a setting and is passed over; the settings are url and token")
        elif not isinstance(value, str):
            raise Ended(Exit.USAGE, f'{path}: {name} is not text: write {name} = "..."')
        else:
            found[name] = value
    if "token" in found and shared:
        _warn_shared(path, warn)
    return found


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
