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
@click.option("--flip-id", metavar="ID", help=_FLIP_ID_HELP)
@click.option("--wait/--no-wait", default=None, help="Wait until it is effective (on a terminal it does).")
@common_options
def kill(scope: str, identifier: str | None, **options: Any) -> None:
    """Kill a target: SCOPE ID, SCOPE:ID, or global.

    From the moment that the reply names, no check of any worker passes what it kills. Repeating a kill is safe: each
    makes a hold of its own, and the target is killed while it has one.

    \b
    Examples:
      haltline kill run r-42 --reason "mails the wrong customers"
      haltline kill capability send_email --reason "provider says we spam"
      haltline kill global --reason "stop, then look"
    """

    def work(session: Session) -> Exit:
        from haltline.cli.kill import kill as command

        named = target_of(scope, identifier)
        return command(session, named, reason=reason, flip_id=flip_id, wait=wait)

    reason, flip_id, wait = options.pop("reason"), options.pop("flip_id"), options.pop("wait")
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
