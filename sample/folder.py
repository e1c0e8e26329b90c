"""The data folder: the database, the admin token in a file that only its owner can read, and the recipients."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sample.crew import Assignment
from sample.recipients import write_recipients
from sample.troubles import Trouble

RECIPIENTS: Final = 20_000


class Folder:
    """A data folder, fresh or kept.

    Args:
        path: where; it is made if it does not exist, for its owner only.

    Raises:
        Trouble: it cannot be made or used.

    Attributes:
        path: where, absolute.
        database: the service's database.
        config: the command line's configuration file with the admin token.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.database = self.path / "haltline.db"
        self.config = self.path / "config.toml"
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Trouble(f"the data folder {path} cannot be made: {error.strerror}") from error
        ignore = self.path / ".gitignore"
        if not ignore.exists() and os.access(self.path, os.W_OK):
            ignore.write_text("*\n", encoding="ascii")  # there will be a token here: it must never be committed
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise Trouble(f"the data folder {path} is not yours to write: choose another with --data")

    def admin_token(self) -> str:
        """Return the admin token that an earlier start left here; an empty text on a fresh folder.

        Raises:
            Trouble: there is a log, but no token for it.
        """
        if not self.database.exists():
            return ""
        try:
            token = tomllib.loads(self.config.read_text(encoding="utf-8")).get("token", "")
        except (OSError, ValueError):
            token = ""
        if not isinstance(token, str) or not token:
            raise Trouble(
                f"{self.path} holds a log, but {self.config.name} in it has no token: restore that file, or use "
                f"another folder (--data DIR)"
            )
        return token

    def write_config(self, name: str, url: str, token: str) -> Path:
        """Write a configuration file for the command line, readable by its owner only, and return where it is."""
        path = self.path / name
        fresh = self.path / f".{name}.new"
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f'url = "{url}"\ntoken = "{token}"\n')
        fresh.replace(path)
        return path

    def contacts(self, crew: Sequence[Assignment]) -> dict[str, Path]:
        """Return each run's file of recipients, made where it is missing."""
        files = {}
        for assignment in crew:
            path = self.path / f"contacts-{assignment.run}.tsv"
            if not path.exists():
                fresh = path.with_suffix(".new")
                write_recipients(fresh, RECIPIENTS)
                fresh.replace(path)
            files[assignment.run] = path
        return files

    def mail_folder(self, count: int = 1) -> Path:
        """Return a new, empty folder for kept mail: mail-1, mail-2 and so on."""
        while True:
            path = self.path / f"mail-{count}"
            try:
                path.mkdir(mode=0o700)
            except FileExistsError:
                count += 1
                continue
            return path
