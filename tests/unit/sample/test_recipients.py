"""Recipients are made once, and read round and round."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from sample.recipients import read_recipients, write_recipients


def test_round_and_round(tmp_path: Path) -> None:
    """Reading begins again at the end of the file."""
    path = tmp_path / "contacts.tsv"
    write_recipients(path, 3)
    read = list(islice(read_recipients(path), 7))
    assert read[:3] == read[3:6]
    assert read[6] == read[0]
    assert len({each.address for each in read}) == 3


def test_nobody_real(tmp_path: Path) -> None:
    """Every address is of a domain that is reserved for examples."""
    path = tmp_path / "contacts.tsv"
    write_recipients(path, 200)
    domains = {each.address.partition("@")[2] for each in islice(read_recipients(path), 200)}
    assert domains <= {"example.com", "example.net", "example.org"}


@pytest.mark.parametrize("text", ["", "no tab here\n", "Ada\tnowhere\n"])
def test_not_recipients(tmp_path: Path, text: str) -> None:
    """A file that holds none, or a line that is none, is an error and not an endless search."""
    path = tmp_path / "contacts.tsv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"contacts\.tsv"):
        next(read_recipients(path))
