"""The file of an embedded database: where it may lie, and who owns it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

import pytest

from app.storage import StoreRefused
from app.storage.sqlite_file import OwnedFile, filesystem_of, refuse_network

MOUNTS: Final = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw,nosuid - proc proc rw
24 22 0:30 / /mnt/share rw,relatime shared:2 master:1 - nfs4 server:/export rw
25 24 0:31 / /mnt/share/local rw - xfs /dev/vdb rw
26 22 0:32 / /mnt/with\040blank rw - cifs //server/share rw
27 22 0:33 / /srv/ann/remote rw - fuse.sshfs ann@host: rw
28 22 0:34 / /over rw - nfs server:/a rw
29 22 0:35 / /over rw - tmpfs tmpfs rw
a line that is not of this table
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/haltline.db", "ext4"),
        ("/mnt/share/haltline.db", "nfs4"),
        ("/mnt/share", "nfs4"),
        ("/mnt/shared/haltline.db", "ext4"),
        ("/mnt/share/local/haltline.db", "xfs"),
        ("/mnt/with blank/haltline.db", "cifs"),
        ("/over/haltline.db", "tmpfs"),
    ],
)
def test_the_innermost_and_newest_mount_holds_a_path(path: str, kind: str) -> None:
    """A path belongs to the longest mount point above it, the last one of those that cover each other."""
    assert filesystem_of(MOUNTS, path) == kind


def test_the_innermost_mount_is_found_in_any_order() -> None:
    """The kernel does not promise that a mount point is listed before those inside it."""
    backwards = "\n".join(reversed(MOUNTS.splitlines()))
    assert filesystem_of(backwards, "/mnt/share/haltline.db") == "nfs4"
    assert filesystem_of(backwards, "/mnt/share/local/haltline.db") == "xfs"


def test_a_table_that_does_not_say_is_none() -> None:
    """Without a mount point above the path nothing is known."""
    assert filesystem_of("", "/srv/haltline.db") is None


@pytest.mark.parametrize(
    "path", ["/mnt/share/haltline.db", "/mnt/with blank/haltline.db", "/srv/ann/remote/x/haltline.db"]
)
def test_a_network_file_system_is_refused(path: str) -> None:
    """The refusal names the path and says what to do instead."""
    with pytest.raises(StoreRefused, match=r"network file system .* local disk, or use PostgreSQL") as refused:
        refuse_network(MOUNTS, path)
    assert path in str(refused.value)


@pytest.mark.parametrize("path", ["/srv/haltline.db", "/mnt/share/local/haltline.db", "/over/haltline.db"])
def test_a_local_file_system_is_not_refused(path: str) -> None:
    """Local disks, also those mounted inside a network share, are fine."""
    refuse_network(MOUNTS, path)


def test_an_owned_file_is_made_for_its_owner_only(tmp_path: Path) -> None:
    """Reasons and token hashes are readable by nobody else; the lock file neither."""
    owned = OwnedFile(tmp_path / "a.db")
    try:
        modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.db", "a.db.lock")]
        assert modes == [0o600, 0o600]
    finally:
        owned.release()


def test_a_second_owner_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    """The message names the process that owns the file."""
    owned = OwnedFile(tmp_path / "a.db")
    try:
        with pytest.raises(StoreRefused, match=f"in use by process {os.getpid()}:"):
            OwnedFile(tmp_path / "a.db", wait=0)
    finally:
        owned.release()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    """The lock holds between processes, and ends with the process that held it."""
    script = (
        "import sys, pathlib; from app.storage.sqlite_file import OwnedFile; "
        "OwnedFile(pathlib.Path(sys.argv[1])); print('owned', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "a.db"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"owned\n"
        with pytest.raises(StoreRefused, match=f"process {other.pid}:"):
            OwnedFile(tmp_path / "a.db", wait=0)
        other.kill()
    OwnedFile(tmp_path / "a.db", wait=0).release()


def test_one_file_by_two_names_is_one_lock(tmp_path: Path) -> None:
    """A symbolic link to the file, or to its folder, does not lead past the lock."""
    folder = tmp_path / "real"
    folder.mkdir()
    owned = OwnedFile(folder / "a.db")
    try:
        (tmp_path / "link.db").symlink_to(folder / "a.db")
        (tmp_path / "folder").symlink_to(folder)
        for name in ("link.db", "folder/a.db", "real/../real/a.db"):
            with pytest.raises(StoreRefused, match="in use"):
                OwnedFile(tmp_path / name, wait=0)
    finally:
        owned.release()


def test_a_hard_link_is_refused(tmp_path: Path) -> None:
    """A file with a second name could be locked twice."""
    OwnedFile(tmp_path / "a.db").release()
    (tmp_path / "b.db").hardlink_to(tmp_path / "a.db")
    with pytest.raises(StoreRefused, match="2 names"):
        OwnedFile(tmp_path / "a.db")


def test_a_leaving_owner_is_waited_for(tmp_path: Path) -> None:
    """A restart finds the old process still closing, and takes over when it is gone."""
    owned = OwnedFile(tmp_path / "a.db")
    leaving = threading.Timer(0.2, owned.release)
    leaving.start()
    OwnedFile(tmp_path / "a.db", wait=10).release()
    leaving.join()


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    """A typing error in the path is no SQLite error number."""
    with pytest.raises(StoreRefused, match=r"folder .*nowhere does not exist"):
        OwnedFile(tmp_path / "nowhere" / "a.db")


def test_a_folder_is_no_database(tmp_path: Path) -> None:
    """What cannot be opened is refused, and its lock given back."""
    (tmp_path / "a.db").mkdir()
    with pytest.raises(StoreRefused, match="cannot be opened"):
        OwnedFile(tmp_path / "a.db")
    (tmp_path / "a.db").rmdir()
    OwnedFile(tmp_path / "a.db", wait=0).release()
