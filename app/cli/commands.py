"""haltline-server serve | migrate | kill | settings | token: the commands and their options.

The modules that do the work are imported by the commands that need them: the process that starts gunicorn must import
as little as possible before its worker is patched.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from app.cli.settings import database_options, fail, serving_options
from app.config import Config
from app.domain.promises import TTL_MAX_MS, TTL_MIN_MS


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run the Haltline service and look after its database.

    Settings come from options, then from the environment: see config/example.env.
    Exit status: 0 done, 2 usage or configuration; `kill` has more, see its help.
    """


@main.command()
@serving_options
@click.option("--check", is_flag=True, help="Check configuration, database and schema, print a report, serve nothing.")
def serve(config: Config, *, check: bool) -> None:
    """Serve the API until SIGTERM or Ctrl-C."""
    if check:
        from app.cli.checking import report

        sys.exit(report(config))
    from app.serving.server import run

    sys.exit(run(config, prepare=_prepare))


def _prepare(config: Config) -> int:
    from app.cli.preparing import prepare

    return prepare(config)


@main.command()
@database_options
def migrate(config: Config) -> None:
    """Bring the database to the schema of this version."""
    from app.service.store import StoreUnavailable
    from app.storage import migrate as migrations

    try:
        before = migrations.current(config.database_url)
        migrations.upgrade(config.database_url)
        after = migrations.current(config.database_url)
    except StoreUnavailable as error:
        raise fail(str(error)) from None
    click.echo(f"schema {after}" if before == after else f"schema {before or 'none'} -> {after}")


@main.command()
@database_options
@click.argument("scope")
@click.argument("identifier", metavar="[ID]", required=False)
@click.option("--reason", required=True, help="Why, one line of plain text; it is kept in the log for ever.")
@click.option(
    "--in-flight",
    type=click.Choice(["abort", "finish"]),
    default="abort",
    show_default=True,
    help="Calls that are running: abort them, or let them finish by themselves.",
)
@click.option(
    "--queued",
    type=click.Choice(["discard", "drain"]),
    default="discard",
    show_default=True,
    help="Planned work: discard it for ever, or let it drain.",
)
@click.option("--flip-id", metavar="ID", help="Repeat a kill whose outcome is not known: it is never done twice.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def kill(config: Config, **options: Any) -> None:
    r"""Kill a target straight on the database: SCOPE ID, SCOPE:ID, or global.

    For when no control lane can be reached: it writes the same flip in the same transaction, as haltline-server. An
    SQLite file can be used by one process at a time: stop the service first, which stops every worker within one ttl.

    \b
    Exit codes:
      0  done
      1  a repeated kill whose hold was released since
      2  usage or configuration
      3  refused: the flip id is another flip's, or there are too many holds; nothing was done
      4  the database could not be used: nothing was done
      5  whether it was done is not known: type the line again that is printed
    """
    from app.cli.flipping import kill as command

    sys.exit(command(config, **options))


@main.command()
@database_options
@click.option("--ttl-ms", type=click.IntRange(TTL_MIN_MS, TTL_MAX_MS), help="Change the lease ttl of the whole store.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def settings(config: Config, **options: Any) -> None:
    """Show the lease ttl of the whole store, or change it, straight on the database.

    Every node serves it from its next read on. While the service runs, an admin changes it with PUT /v1/settings; an
    SQLite file can be used by one process at a time.
    """
    from app.cli.settingttl import settings as command

    command(config, **options)


@main.group()
def token() -> None:
    """Make, list and revoke tokens, straight on the database.

    An SQLite file can be used by one process at a time: while the service runs, use /v1/tokens instead.
    """


@token.command("create")
@database_options
@click.option("--subject", required=True, help="The person or machine that the token names.")
@click.option("--role", required=True, help="observer, worker, operator, releaser, gateway or admin.")
@click.option("--tenant", "tenants", multiple=True, help="Bind it to a tenant; may be repeated. Worker and operator.")
@click.option("--days", type=int, default=None, help="How long it lasts, 1 to 366 days; default 90.")
def token_create(config: Config, **options: Any) -> None:
    """Make a token and print it: once, to standard output, and nowhere else."""
    from app.cli.tokens import create

    create(config, **options)


@token.command("list")
@database_options
def token_list(config: Config) -> None:
    """List every token without its secret."""
    from app.cli.tokens import show

    show(config)


@token.command("revoke")
@database_options
@click.argument("token_id")
def token_revoke(config: Config, token_id: str) -> None:
    """Revoke a token by its id, the part between the second and the third underscore."""
    from app.cli.tokens import revoke

    revoke(config, token_id)
