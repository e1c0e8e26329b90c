"""Where the production example stands, and how its files are read."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
CONFIG: Final = ROOT / "config"
PRODUCTION: Final = CONFIG / "production"
UNITS: Final = sorted((PRODUCTION / "systemd").glob("*.service"))
VARIABLE: Final = re.compile(r"\bHALTLINE_[A-Z_]*[A-Z]\b")


def env_file(path: Path) -> dict[str, str]:
    """Return what an environment file sets."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def unit(path: Path) -> dict[str, list[str]]:
    """Return the settings of a systemd unit, all sections in one; each may be there several times."""
    found: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def sections(path: Path) -> list[str]:
    """Return the sections of a systemd unit, which is read as strictly as an INI file can be."""
    parser = configparser.RawConfigParser(strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    parser.read_string(path.read_text(encoding="utf-8"))
    return parser.sections()
