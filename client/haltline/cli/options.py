"""What the commands have in common on the command line: options, how they are run, and how they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from haltline.cli.exits import Ended, Exit
from haltline.cli.session import DEFAULT_TIMEOUT_S, Common, Outside, Session

OUTER: Final = "haltline.cli.outer"
"""Where the group keeps the options that stood before the command's name."""

_COMMON: Final = (
    click.option("--url", metavar="URL", help="Where the service answers, https://host:port; several with commas."),
    click.option("--token-file", metavar="FILE", help="A file that holds nothing but the token."),
    click.option("--ca", metavar="FILE", help="The CA to trust instead of the system's, PEM."),
    click.option("--plain-http", is_flag=True, help="Permit http:// to another machine: others can read the token."),
    click.option(
        "--timeout",
        type=click.FloatRange(0.1, 600.0),
        metavar="SECONDS",
        help=f"How long to wait for the service in all (default {DEFAULT_TIMEOUT_S:g}).",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON: one object, or one a line for log."),
)


def common_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command, or the group, the options that every command takes."""
    for option in reversed(_COMMON):
        function = option(function)
    return function


def taken(options: dict[str, Any]) -> Common:
    """Return the common options out of a command's options, and leave its own."""
    return Common(**{name: options.pop(name) for name in Common.__slots__})


def carry_out(options: dict[str, Any], work: Callable[[Session], Exit]) -> None:
    """Carry out a command and end with its exit code.

    Args:
        options: the command's options; the common ones are taken out.
        work: what it does.
    """
    context = click.get_current_context()
    outer = context.meta.get(OUTER, Common())
    outside = context.find_object(Outside) or Outside()
    session = Session(taken(options).or_else(outer), outside)
    try:
        code = work(session)
    except Ended as ended:
        code = session.screen.ended(ended)
    except KeyboardInterrupt:
        code = session.screen.ended(Ended(Exit.FAILED, "interrupted"))
    context.exit(int(code))
