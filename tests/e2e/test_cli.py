"""``haltline`` against a real service, command by command, in a pipe and on a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from haltline import __all__ as public
from tests.support.cli import BIN, Ran, Service, environment, haltline, serving


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service, shared by this module: every test kills targets of its own."""
    with serving(tmp_path_factory.mktemp("service")) as running:
        yield running


def run(service: Service, *words: str, token: str | None = None) -> Ran:
    """Run ``haltline words...`` against the service."""
    return haltline(*words, settings={"HALTLINE_URL": service.url, "HALTLINE_TOKEN": token or service.token})


def test_kill_and_revive(service: Service) -> None:
    """A kill shows up as a flag and in the log, and the revive of its hold ends it."""
    killed = run(service, "kill", "run", "life-1", "--reason", "mails the wrong customers", "--json")
    assert killed.code == 0, killed.err
    seq = killed.json["seq"]
    assert killed.json["new"] is True
    assert 0 <= killed.json["effective_in_ms"] <= 300
    flag = run(service, "flags", "run", "life-1", "--json").json
    assert [(hold["seq"], hold["reason"]) for hold in flag["holds"]] == [(seq, "mails the wrong customers")]
    revived = run(service, "revive", "run", "life-1", "--hold", str(seq), "--reason", "mended", "--json")
    assert revived.code == 0, revived.err
    assert revived.json["released"] == [seq]
    assert run(service, "flags", "run", "life-1", "--json").json["killed"] is False
    lines = run(service, "log", "--target", "run:life-1", "--json").out.splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["kill", "revive"]


def test_the_whole_incantation(service: Service) -> None:
    """``haltline kill run r-42 --reason "..."`` with nothing else says what it did."""
    ran = run(service, "kill", "run", "r-42", "--reason", "mails the wrong customers")
    assert ran.code == 0, ran.err
    assert ran.err == ""
    assert "killed run:r-42 at log position" in ran.out
    assert "effective in" in ran.out


def test_wait(service: Service) -> None:
    """--wait ends no earlier than the kill is effective."""
    began = time.monotonic()
    ran = run(service, "kill", "run", "waited-for", "--reason", "why", "--wait")
    assert ran.code == 0
    assert time.monotonic() - began >= 0.3
    assert "effective: every lease granted before this kill has ended" in ran.out


def test_repeated_kill(service: Service) -> None:
    """The same flip_id never kills twice, and never another target."""
    words = ("kill", "run", "again", "--reason", "why", "--flip-id", "again-1", "--json")
    first, second = run(service, *words), run(service, *words)
    assert (first.code, second.code) == (0, 0)
    assert first.json["seq"] == second.json["seq"]
    assert second.json["new"] is False
    other = run(service, "kill", "run", "other", "--reason", "why", "--flip-id", "again-1", "--json")
    assert other.code == 3
    assert other.json["problem"]["code"] == "flip_id_taken"


def test_several_holds(service: Service) -> None:
    """Several holds must be named; the rest goes on holding."""
    seqs = [run(service, "kill", "tenant", "acme", "--reason", f"{n}", "--json").json["seq"] for n in range(3)]
    refused = run(service, "revive", "tenant", "acme", "--reason", "mended")
    assert refused.code == 2
    assert all(f"hold {seq} by admin" in refused.err for seq in seqs)
    one = run(service, "revive", "tenant", "acme", "--reason", "mended", "--hold", str(seqs[1]))
    assert one.code == 0
    assert "STILL KILLED by 2 more" in one.out
    rest = run(service, "revive", "tenant", "acme", "--reason", "mended", "--all", "--json")
    assert rest.json["released"] == [seqs[0], seqs[2]]
    assert rest.json["holds"] == []


def test_repeated_revive(service: Service) -> None:
    """A revive is repeated by its flip_id, though its hold is gone."""
    seq = run(service, "kill", "run", "twice", "--reason", "why", "--json").json["seq"]
    words = ("revive", "run", "twice", "--hold", str(seq), "--reason", "ok", "--flip-id", "twice-1", "--json")
    first, second = run(service, *words), run(service, *words)
    assert (first.code, second.code) == (0, 0), second.err
    assert first.json["seq"] == second.json["seq"]


def test_released_since(service: Service) -> None:
    """A kill repeated after its hold was released does not pretend that the target is killed."""
    words = ("kill", "run", "since", "--reason", "why", "--flip-id", "since-1")
    assert run(service, *words).code == 0
    assert run(service, "revive", "run", "since", "--all", "--reason", "ok").code == 0
    ran = run(service, *words)
    assert ran.code == 1
    assert "it is not killed now" in ran.err


def test_status(service: Service) -> None:
    """Status says fresh, the ttl, the head, and what is killed."""
    run(service, "kill", "capability", "send_email", "--reason", "why")
    ran = run(service, "status")
    assert ran.code == 0, ran.err
    assert "fresh      yes" in ran.out
    assert "300 ms" in ran.out
    members = run(service, "status", "--json").json
    assert members["fresh"] is True
    assert members["ttl_ms"] == 300
    assert members["counts"]["capability"] == 1
    assert members["head"]["seq"] >= 3


def test_log_filters(service: Service) -> None:
    """The log is filtered by kind, actor and time, newest last."""
    run(service, "kill", "feature", "outreach", "--reason", "why")
    found = run(service, "log", "--scope", "feature", "--kind", "kill", "--actor", "admin", "--since", "1h", "--json")
    assert [json.loads(line)["target"] for line in found.out.splitlines()] == ["feature:outreach"]
    assert run(service, "log", "--until", "1h").out == "no entry matches\n"
    seqs = [json.loads(line)["seq"] for line in run(service, "log", "--limit", "3", "--json").out.splitlines()]
    assert seqs == sorted(seqs)
    assert len(seqs) == 3
    assert "log_opened" in run(service, "log").out


def test_export_and_verify(service: Service, tmp_path: Path) -> None:
    """An export verifies against the head that it was promised, and an altered one does not."""
    run(service, "kill", "run", "exported", "--reason", '„warum“ \\ "quoted"')
    path = tmp_path / "log.jsonl"
    exported = run(service, "export", "-o", str(path), "--json")
    assert exported.code == 0, exported.err
    head = f"{exported.json['head']['seq']}:{exported.json['head']['hash']}"
    verified = haltline("verify", str(path), "--head", head, "--json", settings={})
    assert verified.code == 0, verified.err
    assert verified.json["entries"] == exported.json["entries"] == exported.json["head"]["seq"]
    assert "run:exported" in [hold["target"] for hold in verified.json["holds"]]
    assert run(service, "export", "-o", "-").out.encode() == path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"warum", b"darum"))
    assert haltline("verify", str(path), settings={}).code == 1


def test_roles(service: Service) -> None:
    """What a token may not do ends with 3, and says which role may."""
    observer = service.issue(subject="bob", role="observer")
    ran = run(service, "kill", "run", "r-1", "--reason", "why", token=observer)
    assert ran.code == 3
    assert ran.err.startswith("NOT KILLED: run:r-1: 403 forbidden")
    assert run(service, "flags", token=observer).code == 0


def test_tenant_bound_operator(service: Service, tmp_path: Path) -> None:
    """An operator bound to a tenant kills that tenant only, and its export says why it cannot be verified."""
    bound = service.issue(subject="carol", role="operator", tenants=["umbrella"])
    assert run(service, "kill", "tenant", "umbrella", "--reason", "why", token=bound).code == 0
    run(service, "kill", "tenant", "initech", "--reason", "why")
    assert run(service, "kill", "tenant", "initech", "--reason", "why", token=bound).code == 3
    assert run(service, "kill", "global", "--reason", "why", token=bound).code == 3
    path = tmp_path / "log.jsonl"
    assert run(service, "export", "-o", str(path), token=bound).code == 0
    ran = haltline("verify", str(path), settings={})
    assert ran.code == 1
    assert "is a stub" in ran.err


def test_unknown_token(service: Service) -> None:
    """A token that the service does not know ends with 3, and is not shown."""
    wrong = f"hlt_default_abcdefghijkl_{'A' * 49}"
    assert run(service, "status", token=wrong).code == 3
    ran = run(service, "kill", "run", "r-1", "--reason", "why", token=wrong)
    assert ran.code == 3
    assert "401 unauthenticated" in ran.err
    assert wrong not in ran.out + ran.err


def test_bad_reason(service: Service) -> None:
    """A reason that could lie on a terminal is refused by the service, and the field is named."""
    ran = run(service, "kill", "run", "r-1", "--reason", "a\x1b[2Jb")
    assert ran.code == 3
    assert "reason: " in ran.err
    assert "\x1b" not in ran.err


def test_settings_from_files(service: Service, tmp_path: Path) -> None:
    """Address and token come from the configuration file; one that others can read is warned of."""
    config = tmp_path / "config.toml"
    config.write_text(f'url = "{service.url}"\ntoken = "{service.token}"\n', encoding="utf-8")
    config.chmod(0o644)
    ran = haltline("flags", settings={"HALTLINE_CONFIG": str(config)})
    assert ran.code == 0
    assert "chmod 600" in ran.err
    config.chmod(0o600)
    ran = haltline("flags", settings={"HALTLINE_CONFIG": str(config)})
    assert (ran.code, ran.err) == (0, "")
    token = tmp_path / "token"
    token.write_text(service.token, encoding="utf-8")
    token.chmod(0o600)
    assert haltline("flags", "--url", service.url, "--token-file", str(token), settings={}).code == 0


def test_help_teaches() -> None:
    """--help shows the incantation, the rungs and every exit code; --version the version."""
    ran = haltline("--help", settings={})
    assert ran.code == 0
    assert 'haltline kill run r-42 --reason "' in ran.out
    for code, words in enumerate(("done", "the check failed", "usage", "refused", "nothing was done", "not known")):
        assert any(line.split()[:1] == [str(code)] and words in line for line in ran.out.splitlines())
    for command in ("kill", "revive", "status", "flags", "log", "export", "verify"):
        assert haltline(command, "--help", settings={}).code == 0
    assert haltline("--version", settings={}).out.startswith("haltline, version ")


def test_importing_the_client_draws_nothing() -> None:
    """Importing haltline imports neither click nor rich, and a kill in a pipe does not need rich."""
    names = ", ".join(public)
    code = f"import sys; from haltline import {names}; assert not {{'click', 'rich'}} & {{*sys.modules}}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)
    code = "import sys, haltline.cli.commands, haltline.cli.kill; assert 'rich' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)


class Terminal:
    """``haltline`` on a terminal of its own."""

    def __init__(self, *words: str, settings: dict[str, str]) -> None:
        self._near, far = pty.openpty()
        self.process = subprocess.Popen(
            [BIN / "haltline", *words],
            env=environment(TERM="xterm", COLUMNS="200", **settings),
            stdin=far,
            stdout=far,
            stderr=far,
            start_new_session=True,
        )
        os.close(far)
        self.shown = ""

    def read_until(self, text: str | None, *, seconds: float = 15.0) -> None:
        """Read until a text is shown, or for None until the command ends."""
        until = time.monotonic() + seconds
        while text is None or text not in self.shown:
            ready, _, _ = select.select([self._near], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"{text!r} was not shown:\n{self.shown}"
            try:
                data = os.read(self._near, 4096)
            except OSError:  # the other end was closed
                data = b""
            if not data:
                assert text is None, f"{text!r} was not shown:\n{self.shown}"
                return
            self.shown += data.decode("utf-8", "replace")

    def end(self) -> int:
        """Read to the end and return the exit code."""
        try:
            self.read_until(None)
            return self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
            os.close(self._near)


@pytest.fixture
def settings(service: Service) -> dict[str, str]:
    """Where the service is and who asks."""
    return {"HALTLINE_URL": service.url, "HALTLINE_TOKEN": service.token}


def test_terminal_counts_down(settings: dict[str, str]) -> None:
    """On a terminal the seconds are counted down before the eyes of whoever killed."""
    terminal = Terminal("kill", "run", "seen", "--reason", "mails [bold]the[/] wrong", settings=settings)
    assert terminal.end() == 0
    assert "killed run:seen at log position" in terminal.shown
    assert "effective in 0." in terminal.shown
    assert "effective: every lease granted before this kill has ended" in terminal.shown


def test_terminal_interrupted_countdown(settings: dict[str, str]) -> None:
    """Ctrl-C during the countdown ends with 0 and says that the kill is done."""
    terminal = Terminal("kill", "run", "interrupted", "--reason", "why", settings=settings)
    terminal.read_until("effective in")
    terminal.process.send_signal(2)
    assert terminal.end() == 0
    assert "the kill is done" in terminal.shown


def test_terminal_no_wait(settings: dict[str, str]) -> None:
    """--no-wait does not count, on a terminal either."""
    terminal = Terminal("kill", "run", "unwaited", "--reason", "why", "--no-wait", settings=settings)
    assert terminal.end() == 0
    assert "until then a lease granted before may run" in terminal.shown


def test_terminal_markup_is_text(service: Service, settings: dict[str, str]) -> None:
    """What looks like markup in a reason is shown as it was written."""
    run(service, "kill", "run", "markup", "--reason", "[red]not red[/red] :smile: [link=http://x]y[/link]")
    terminal = Terminal("flags", "run", "markup", settings=settings)
    assert terminal.end() == 0
    assert "[red]not red[/red] :smile: [link=http://x]y[/link]" in terminal.shown


def test_terminal_progress(settings: dict[str, str], tmp_path: Path) -> None:
    """Export and verify draw their progress on a terminal."""
    path = str(tmp_path / "log.jsonl")
    export = Terminal("export", "-o", path, settings=settings)
    assert export.end() == 0
    assert "exporting" in export.shown
    verify = Terminal("verify", path, settings={})
    assert verify.end() == 0
    assert "verifying" in verify.shown
    assert "good: " in verify.shown
