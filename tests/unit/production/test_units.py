"""The systemd units: complete, hardened, and with room for every stream."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.config import STREAMS_MAX, from_env
from app.serving.files import BESIDE
from app.serving.server import GRACE_S
from tests.unit.production.files import PRODUCTION, UNITS, env_file, sections, unit

by_name = pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)

HARDENED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "CapabilityBoundingSet": "",
    "DynamicUser": "yes",
    "SystemCallFilter": "@system-service",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "UMask": "0077",
}


def test_one_for_each_lane() -> None:
    """There is a template for control lanes and one for worker nodes, so that two of each can run."""
    assert [each.name for each in UNITS] == ["haltline-control@.service", "haltline-worker@.service"]


@by_name
def test_systemd_takes_it(path: Path, tmp_path: Path) -> None:
    """``systemd-analyze verify`` finds nothing wrong."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed: the unit is checked by its keys only")
    copy = tmp_path / path.name.replace("@", "@8701")
    server = Path(sys.executable).with_name("haltline-server")
    copy.write_text(re.sub(r"/opt/haltline/bin/haltline-server", str(server), path.read_text(encoding="utf-8")))
    done = subprocess.run(
        [tool, "verify", "--man=no", copy], capture_output=True, text=True, timeout=30, check=False, env={**os.environ}
    )
    said = [line for line in done.stderr.splitlines() if copy.name in line]
    assert said == []


@by_name
def test_what_it_must_say(path: Path) -> None:
    """It is notified, restarted for ever, told to end in order and killed only after the server's own time for that."""
    assert sections(path) == ["Unit", "Service", "Install"]
    settings = unit(path)
    assert settings["Type"] == ["notify"]
    assert settings["Restart"] == ["always"]
    assert settings["StartLimitIntervalSec"] == ["0"]
    assert settings["KillSignal"] == ["SIGTERM"]
    assert settings["KillMode"] == ["mixed"]
    assert float(settings["TimeoutStopSec"][0]) > 2 * GRACE_S
    assert {name: settings[name][0] for name in HARDENED} == HARDENED


@by_name
def test_its_settings_come_from_its_file(path: Path) -> None:
    """It reads the file of its own lane, and the password from a credential, never from its own lines."""
    settings = unit(path)
    (named,) = settings["EnvironmentFile"]
    lane = path.name.partition("@")[0].removeprefix("haltline-")
    assert named == f"/etc/haltline/{lane}.env"
    assert from_env(env_file(PRODUCTION / Path(named).name)).lane == lane
    assert settings["LoadCredential"] == ["pgpass:/etc/haltline/pgpass"]
    assert "PGPASSFILE=%d/pgpass" in settings["Environment"]


@by_name
def test_room_for_every_stream(path: Path) -> None:
    """It may open a file for each stream it carries, and for what it needs beside."""
    assert int(unit(path)["LimitNOFILE"][0]) >= STREAMS_MAX + BESIDE
