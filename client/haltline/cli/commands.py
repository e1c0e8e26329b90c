"""The commands, and the help that teaches them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import click

from haltline.cli.exits import Ended, Exit
from haltline.cli.options import OUTER, carry_out, common_options, taken
from haltline.cli.session import Session, target_of

_SCOPES: Final = click.Choice(["capability", "run", "tenant", "feature", "global"])
_REASON_HELP: Final = "Why, one line of plain text; it is kept in the log for ever."
_IN_FLIGHT_HELP: Final = "Calls that are running: abort them (the default), or let them finish by themselves."
_QUEUED_HELP: Final = "Planned work: discard it for ever (the default), or let it drain."
_FLIP_ID_HELP: Final = "Repeat a flip whose outcome is not known: it is never done twice."

_EPILOG: Final = """\b
Four rungs, from the narrowest button to the broadest:
  capability   freeze one tool, the rest goes on     haltline kill capability send_email --reason "..."
  run          one run and everything it started     haltline kill run r-42 --reason "..."
  tenant       one cohort                            haltline kill tenant acme --reason "..."
  feature      one cohort                            haltline kill feature bulk-outreach --reason "..."
  global       stop the world                        haltline kill global --reason "..."

\b
Settings, the first found wins: options, then HALTLINE_URL, HALTLINE_TOKEN, HALTLINE_CA and HALTLINE_PLAIN_HTTP,
then url, token, ca and plain_http in the file that HALTLINE_CONFIG names (~/.config/haltline/config.toml). The token
is never an argument. Name every control lane, separated by commas: --url https://one:8787,https://two:8787

\b
Exit codes:
  0  done
  1  the check failed: a broken chain, an export that broke off, a repeated kill released since; or interrupted
  2  usage or configuration
  3  the service, or what answered instead of it, refused; nothing was done
  4  not reached, or it could not write: nothing was done
  5  whether it was done is not known: type the line again that is printed
exec has codes of its own, the command's above all: haltline exec --help
"""


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="haltline", prog_name="haltline")
@common_options
@click.pass_context
def haltline(context: click.Context, /, **options: Any) -> None:
    """Stop a running fleet of agents or workers with one call, and read what happened.

    \b
      haltline kill run r-42 --reason "mails the wrong customers"
      haltline status
      haltline revive run r-42 --hold 17 --reason "the list is mended"
    """
    context.meta[OUTER] = taken(options)


@haltline.command()
@click.argument("scope")
@click.argument("identifier", metavar="[ID]", required=False)
@click.option("--reason", required=True, help=_REASON_HELP)
@click.option("--in-flight", type=click.Choice(["abort", "finish"]), help=_IN_FLIGHT_HELP)
@click.option("--queued", type=click.Choice(["discard", "drain"]), help=_QUEUED_HELP)
@click.option("--flip-id", metavar="ID", help=_FLIP_ID_HELP)
@click.option("--wait/--no-wait", default=None, help="Wait until it is effective (on a terminal it does).")
@common_options
def kill(scope: str, identifier: str | None, **options: Any) -> None:
    """Kill a target: SCOPE ID, SCOPE:ID, or global.

    From the moment that the reply names, no check of any worker passes what it kills. Repeating a kill is safe: each
    makes a hold of its own, and the target is killed while it has one.

    Calls that are running are aborted, and planned work never runs, not after a revive either; the options say
    otherwise.

    \b
    Examples:
      haltline kill run r-42 --reason "mails the wrong customers"
      haltline kill capability send_email --reason "provider says we spam"
      haltline kill tenant acme --in-flight finish --queued drain --reason "nothing new"
      haltline kill global --reason "stop, then look"
    """

    def work(session: Session) -> Exit:
        from haltline.cli.kill import kill as command

        named = target_of(scope, identifier)
        return command(session, named, reason=reason, policy=policy, flip_id=flip_id, wait=wait)

    reason, flip_id, wait = options.pop("reason"), options.pop("flip_id"), options.pop("wait")
    given = {name: options.pop(name) for name in ("in_flight", "queued")}
    policy = {name: value for name, value in given.items() if value is not None}
    carry_out(options, work)


@haltline.command()
@click.argument("scope")
@click.argument("identifier", metavar="[ID]", required=False)
@click.option("--reason", required=True, help=_REASON_HELP)
@click.option("--hold", "holds", metavar="N", type=click.IntRange(1), multiple=True, help="A hold to release; repeat.")
@click.option("--all", "everything", is_flag=True, help="Release every hold that is there now.")
@click.option("--flip-id", metavar="ID", help=_FLIP_ID_HELP)
@common_options
def revive(scope: str, identifier: str | None, **options: Any) -> None:
    """Release holds of a target: SCOPE ID, SCOPE:ID, or global.

    A target is free when its last hold is released. Name yours with --hold; without it the holds are listed and nothing
    is released, so that nobody lets go of somebody else's by accident. If somebody flips the target in between, nothing
    is released either. A revive starts nothing: it permits a restart.

    \b
    Examples:
      haltline revive run r-42 --hold 17 --reason "the list is mended"
      haltline revive tenant acme --hold 17 --hold 21 --reason "both are mine"
      haltline revive global --all --reason "all clear"
    """

    def work(session: Session) -> Exit:
        from haltline.cli.revive import Order
        from haltline.cli.revive import revive as command

        if everything and holds:
            raise Ended(Exit.USAGE, "--all and --hold exclude each other")
        order = Order(reason, tuple(sorted(set(holds))), everything, flip_id)
        return command(session, target_of(scope, identifier), order)

    reason, holds = options.pop("reason"), options.pop("holds")
    everything, flip_id = options.pop("everything"), options.pop("flip_id")
    carry_out(options, work)


@haltline.command()
@common_options
def status(**options: Any) -> None:
    """Show whether the service is fresh, where its log stands, and what is killed on each rung."""

    def work(session: Session) -> Exit:
        from haltline.cli.flags import status as command

        return command(session)

    carry_out(options, work)


@haltline.command()
@click.argument("scope", required=False)
@click.argument("identifier", metavar="[ID]", required=False)
@common_options
def flags(scope: str | None, identifier: str | None, **options: Any) -> None:
    """Show every killed target, or one target: SCOPE ID, SCOPE:ID, or global.

    \b
    Examples:
      haltline flags
      haltline flags run r-42
    """

    def work(session: Session) -> Exit:
        from haltline.cli.flags import flag as one
        from haltline.cli.flags import flags as every

        return every(session) if scope is None else one(session, target_of(scope, identifier))

    carry_out(options, work)


@haltline.command()
@click.option("--since", metavar="WHEN", help="Entries of this moment and later: 2h, 1h30m, 7d, 2026-11-20T20:25:11Z.")
@click.option("--until", metavar="WHEN", help="Entries before this moment.")
@click.option("--scope", type=_SCOPES, help="Flips of this scope.")
@click.option("--target", metavar="TARGET", help="Flips of this target, as in run:r-42.")
@click.option("--actor", metavar="SUBJECT", help="Entries of this subject.")
@click.option("--kind", type=click.Choice(["kill", "revive", "note"]), help="Entries of this kind.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), help="The newest so many (default 50).")
@click.option("-f", "--follow", is_flag=True, help="Show what happens from now on, as it happens, until Ctrl-C.")
@click.option("--after", type=click.IntRange(0), metavar="SEQ", help="With --follow: begin behind this entry.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="With --follow: end when N entries were shown.")
@common_options
def log(**options: Any) -> None:
    """Show what happened, newest last.

    With --follow every entry is proven to follow the one before, and a connection that is lost is made again without a
    gap. It ends with 1, and says so loudly, if the log does not hold together.

    \b
    Examples:
      haltline log --since 2h
      haltline log --target run:r-42 --kind kill
      haltline log --json --limit 1000 | jq -r .reason
      haltline log --follow --json --after 1234
    """

    def work(session: Session) -> Exit:
        from haltline.cli.log import DEFAULT_LIMIT, Filters, moment_of
        from haltline.cli.log import log as command

        now = datetime.now(UTC)
        for name in ("since", "until"):
            if given[name] is not None:
                try:
                    given[name] = moment_of(given[name], now=now)
                except ValueError as error:
                    raise Ended(Exit.USAGE, f"--{name}: {error}") from None
        if given["target"] is not None:
            given["target"] = str(target_of(given["target"], None))
        if following:
            from haltline.cli.follow import follow

            if limit is not None or given["until"] is not None:
                raise Ended(Exit.USAGE, "--limit and --until look back: with --follow use --after, --since and --count")
            return follow(session, Filters(**given), after=after, count=count)
        if after is not None or count is not None:
            raise Ended(Exit.USAGE, "--after and --count need --follow")
        return command(session, Filters(**given), limit=limit if limit is not None else DEFAULT_LIMIT)

    limit, following = options.pop("limit"), options.pop("follow")
    after, count = options.pop("after"), options.pop("count")
    given = {name: options.pop(name) for name in ("since", "until", "scope", "target", "actor", "kind")}
    carry_out(options, work)


@haltline.command()
@click.option("-o", "--output", metavar="FILE", required=True, help="Where to write it; - is standard output.")
@click.option("--from", "first", type=click.IntRange(1), default=1, metavar="SEQ", help="Begin with this entry.")
@common_options
def export(**options: Any) -> None:
    """Write the whole log to FILE, one JSON object a line.

    FILE gets its name when the last entry that the service promised has come; until then it is FILE.part.

    \b
    Examples:
      haltline export -o log.jsonl
      haltline export -o - | gzip > log.jsonl.gz
    """

    def work(session: Session) -> Exit:
        from haltline.cli.export import export as command

        return command(session, output, first=first)

    output, first = options.pop("output"), options.pop("first")
    carry_out(options, work)


@haltline.command()
@click.argument("file")
@click.option("--head", metavar="SEQ:HASH", help="An entry that was seen elsewhere: finds a log cut off or redone.")
@click.option("--after", metavar="SEQ:HASH", help="The entry before the first one of FILE, if that is not entry 1.")
@common_options
def verify(file: str, **options: Any) -> None:
    """Check an exported log offline: chain, gaps, contents. FILE may be - for standard input.

    \b
    Examples:
      haltline verify log.jsonl
      haltline verify log.jsonl --head 1234:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    """

    def work(session: Session) -> Exit:
        from haltline.cli.verify import check_of
        from haltline.cli.verify import verify as command

        return command(session, file, check_of(head, after))

    head, after = options.pop("head"), options.pop("after")
    carry_out(options, work)


@haltline.command(
    "exec",
    short_help="Run any program under a run: a kill of the run ends it.",
    context_settings={"allow_interspersed_args": False},
)
@click.option("--run", "run_id", metavar="ID", help="The run's id; a kill of run:ID ends the command.")
@click.option("--child", metavar="NAME", help="Be a child of the run that HALTLINE_RUN names, instead of that run.")
@click.option("--tenant", metavar="ID", help="The tenant that the run works for.")
@click.option("--feature", metavar="ID", help="The feature that the run belongs to.")
@click.option("--grace", metavar="TIME", default="30s", help="From SIGTERM to SIGKILL (default 30s).")
@click.option("--cleanup", metavar="CMD", help="A shell command to run once when everything has ended, however it did.")
@click.option("--cleanup-timeout", metavar="TIME", default="30s", help="How long the cleanup may take (default 30s).")
@click.option("--finish-waits", metavar="TIME", help="How long a kill that says finish lets it go on (no limit).")
@click.option("--strict", is_flag=True, help="Also end it when the lease lapses: when a kill could not be heard of.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD [ARG]...")
@common_options
def exec_(command: tuple[str, ...], **options: Any) -> None:
    """Run CMD, in whatever language it is written, and end it when its run is killed.

    CMD is started once a lease is live and its run is not killed. It is given HALTLINE_RUN (its run, to be joined by
    programs that ask themselves), HALTLINE_URL and HALTLINE_TOKEN, which should be a worker token. On a kill its
    process group is sent SIGTERM, and after the grace everything below it is killed: children, grandchildren, what has
    made itself a daemon. The same happens when CMD ends and leaves something behind, when this command is asked to end
    (SIGTERM, SIGINT, SIGHUP, SIGQUIT, which it passes on), and when it is killed with SIGKILL. It may be pid 1 of a
    container: give that a terminationGracePeriodSeconds of the grace, the cleanup's time and 5 s more.

    A kill that says finish lets CMD end by itself. While the service is unreachable CMD goes on, and a kill is not
    heard of; with --strict CMD is ended as soon as the lease lapses, at most 5 s later.

    \b
    The cleanup finds in its environment
      HALTLINE_ENDED  exited, signalled, killed (by an operator), lapsed (--strict) or orphaned (supervisor killed)
      HALTLINE_EXIT   CMD's exit code, 128+n for signal n
      HALTLINE_FLIP   the kill's position in the log, if it is known

    \b
    Exit codes:
      75       stopped by a kill; also if the run was killed already and CMD not started
      69       no lease: CMD was not started, or --strict ended it
      127 126  CMD was not found, or cannot be run
      70       the guard process was killed, and everything with it
      2        usage or configuration
      else     CMD's own; 128+n where signal n ended it

    \b
    Examples:
      haltline exec --run r-42 -- python agent.py
      haltline exec --run r-42 --tenant acme --grace 10s --cleanup 'rm -rf /tmp/r-42' -- ./agent --fast
      haltline exec --child fetch --strict -- curl -sS https://example.com/feed
    """

    def work(session: Session) -> Exit:
        from haltline.cli.exec import Place, plan_of, seconds_of, supervise
        from haltline.kills import Watch

        plan = plan_of(
            command,
            grace_s=seconds_of("--grace", grace),
            cleanup=cleanup,
            cleanup_s=seconds_of("--cleanup-timeout", cleanup_timeout),
        )
        finish_s = None if finish_waits is None else seconds_of("--finish-waits", finish_waits)
        code = supervise(session, plan, Place(**names), Watch(strict=strict, finish_s=finish_s))
        click.get_current_context().exit(code)

    grace, cleanup, cleanup_timeout = options.pop("grace"), options.pop("cleanup"), options.pop("cleanup_timeout")
    finish_waits, strict = options.pop("finish_waits"), options.pop("strict")
    names = {"run": options.pop("run_id"), **{name: options.pop(name) for name in ("child", "tenant", "feature")}}
    carry_out(options, work)
