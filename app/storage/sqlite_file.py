"""The file of an embedded database: where it may lie, and who owns it.

SQLite's own locks do not keep a second service away (it would merely wait its turn), and on a network file system they
do not keep anybody away. So the owner holds a lock of its own beside the file, for as long as it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from pathlib import Path
from typing import Final

from app.storage.errors import StoreRefused

_NETWORK: Final = frozenset({
    "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "gfs", "gfs2", "glusterfs", "gpfs", "lustre",
    "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "prl_fs", "pvfs2", "smb2", "smb3", "smbfs", "vboxsf",
    "fuse.beegfs", "fuse.blobfuse", "fuse.ceph", "fuse.ceph-fuse", "fuse.cephfs", "fuse.curlftpfs", "fuse.davfs",
    "fuse.davfs2", "fuse.gcsfuse", "fuse.glusterfs", "fuse.goofys", "fuse.grpcfuse", "fuse.juicefs", "fuse.mount-s3",
    "fuse.nfs", "fuse.rclone", "fuse.s3fs", "fuse.seaweedfs", "fuse.smbnetfs", "fuse.sshfs", "fuse.vmhgfs-fuse",
})  # fmt: skip
"""File systems on which file locks or fsync are not what SQLite needs (https://sqlite.org/useovernet.html)."""

_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
_MOUNTS: Final = Path("/proc/self/mountinfo")
_POLL_SECONDS: Final = 0.05


def filesystem_of(mountinfo: str, path: str) -> str | None:
    """Return the type of the file system that holds ``path``, or None if the table does not say.

    Args:
        mountinfo: the text of /proc/self/mountinfo (proc_pid_mountinfo(5)).
        path: an absolute path without symbolic links.
    """
    found: str | None = None
    longest = -1
    for line in mountinfo.splitlines():
        mount, separator, source = line.partition(" - ")
        fields = mount.split(" ")
        if not separator or len(fields) < 6:
            continue
        # Blanks, tabs, line ends and backslashes in a mount point are written as \ooo.
        point = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        # Of two file systems mounted on one point, the later covers the earlier.
        if inside and len(point) >= longest:
            found, longest = source.split(" ")[0], len(point)
    return found


def refuse_network(mountinfo: str, path: str) -> None:
    """Refuse a path on a network file system.

    Args:
        mountinfo: the text of /proc/self/mountinfo.
        path: an absolute path without symbolic links.

    Raises:
        StoreRefused: it lies on one.
    """
    kind = filesystem_of(mountinfo, path)
    if kind in _NETWORK:
        raise StoreRefused(
            f"{path} lies on a network file system ({kind}), where SQLite can lose acknowledged kills: "
            f"put it on a local disk, or use PostgreSQL"
        )


class OwnedFile:
    """A database file that this process owns.

    Attributes:
        path: the file, absolute, without symbolic links: two names of one file find one lock.
    """

    def __init__(self, path: Path, *, wait: float = 5.0) -> None:
        """Take the lock beside the file, and make the file if it is not there.

        Args:
            path: the database file.
            wait: how long to wait for an owner that is just leaving, seconds.

        Raises:
            StoreRefused: the folder is missing, it is on a network file system, or another process owns the file.
        """
        self.path = path.resolve()
        if not self.path.parent.is_dir():
            raise StoreRefused(f"the folder {self.path.parent} does not exist: make it, or name another database")
        with contextlib.suppress(FileNotFoundError):  # a system without /proc
            refuse_network(_MOUNTS.read_text(encoding="utf-8", errors="surrogateescape"), str(self.path))
        try:
            self._lock = self._take(wait)
        except OSError as error:
            raise StoreRefused(f"{self.path} cannot be locked: {error.strerror}") from error
        try:
            self._make()
        except BaseException:
            self.release()
            raise

    def _take(self, wait: float) -> int:
        name = self.path.with_name(f"{self.path.name}.lock")
        # The lock file stays when its owner leaves: removing it would let two processes lock two files of one name.
        lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < until:
                    time.sleep(_POLL_SECONDS)
                    continue
                holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
                os.close(lock)
                raise StoreRefused(
                    f"{self.path} is in use by process {holder}: one service owns an SQLite database; "
                    f"stop that one, or use PostgreSQL for several nodes"
                ) from None
            except OSError:
                os.close(lock)
                raise
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)
            return lock

    def _make(self) -> None:
        try:
            # Reasons and token hashes are nobody else's business; SQLite gives its journal the same mode.
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreRefused(f"{self.path} cannot be opened: {error.strerror}") from error
        try:
            found = os.fstat(handle)
        finally:
            os.close(handle)
        if found.st_nlink > 1:
            raise StoreRefused(
                f"{self.path} has {found.st_nlink} names (hard links), and its lock guards only one: use a copy"
            )
        self._file = found.st_dev, found.st_ino

    def in_place(self) -> bool:
        """Return whether the path still names the file that was there when it was taken."""
        try:
            found = self.path.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._file

    def release(self) -> None:
        """Give the lock back."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
