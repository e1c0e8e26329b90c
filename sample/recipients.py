"""The recipients: a contacts file that is made once, and read line by line for as long as the campaign runs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_GIVEN: Final = ("Ada", "Alan", "Barbara", "Donald", "Edsger", "Frances", "Grace", "John", "Katherine", "Ken", "Radia")
_FAMILY: Final = ("Allen", "Dijkstra", "Hopper", "Johnson", "Knuth", "Liskov", "Lovelace", "Perlman", "Turing")
_DOMAINS: Final = ("example.com", "example.net", "example.org")  # reserved by RFC 2606: nobody's


@dataclass(frozen=True, slots=True)
class Recipient:
    """One line of a contacts file."""

    name: str
    address: str


def write_recipients(path: Path, count: int) -> None:
    """Write a contacts file: a line each, name and address with a tab between, the same for the same count.

    Args:
        path: the file; an existing one is replaced.
        count: how many, 1 or more.
    """
    draw = random.Random(count)
    with path.open("w", encoding="utf-8") as file:
        for number in range(1, count + 1):
            given, family = draw.choice(_GIVEN), draw.choice(_FAMILY)
            address = f"{given}.{family}.{number}@{draw.choice(_DOMAINS)}".lower()
            file.write(f"{given} {family}\t{address}\n")


def read_recipients(path: Path) -> Iterator[Recipient]:
    """Yield the recipients of a contacts file, and begin again at its end, for ever.

    Raises:
        ValueError: the file has no recipients, or a line is not one.
        OSError: it cannot be read.
    """
    while True:
        number = 0
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                name, tab, address = line.rstrip("\n").partition("\t")
                if not tab or not name or "@" not in address:
                    raise ValueError(f"{path}, line {number}: expected a name, a tab and an address")
                yield Recipient(name, address)
        if not number:
            raise ValueError(f"{path} holds no recipients")
