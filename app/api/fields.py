"""Fields: the grammar of everything a caller may send, said once for the check and for the OpenAPI document."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import marshmallow as ma

from app.domain.access import Role
from app.domain.moments import MOMENT_PATTERN, parse_moment
from app.domain.reasons import LINE_PATTERN, MAX_LENGTH, REASON_PATTERN, check_line, check_reason
from app.domain.tokens import check_no_token
from haltline.canonical import MAX_INTEGER
from haltline.scopes import ID_PATTERN, TARGET_PATTERN, check_id, parse_target

EPOCH_PATTERN: Final = "^[0-9a-f]{16}$"
HASH_PATTERN: Final = "^[0-9a-f]{64}$"
NONCE_PATTERN: Final = "^[A-Za-z0-9._~+/=-]{8,128}$"
NAMESPACE_PATTERN: Final = "^[a-z0-9][a-z0-9-]{0,31}$"


class Text(ma.fields.String):
    """A JSON string; nothing else is taken for one."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if type(value) is not str:
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class Whole(ma.fields.Integer):
    """A JSON integer; text of digits is not one."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if type(value) is not int:
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class Digits(ma.fields.Integer):
    """An integer in a query: plain ASCII digits without sign or leading zero."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if type(value) is not str or not value.isascii() or not value.isdigit() or len(value) > 16:
            raise self.make_error("invalid")
        if len(value) > 1 and value.startswith("0"):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class TargetField(Text):
    """A target, loaded as :class:`haltline.scopes.Target`."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            return parse_target(check_no_token(super()._deserialize(value, attr, data, **kwargs)))
        except ValueError as error:
            raise ma.ValidationError(str(error)) from None


def _valid(check: Callable[[str], object]) -> Callable[[str], None]:
    def validate(text: str) -> None:
        try:
            check(text)
        except ValueError as error:
            raise ma.ValidationError(str(error)) from None

    return validate


def target(*, required: bool = True, **metadata: Any) -> TargetField:
    """Return the field of a target."""
    return TargetField(
        required=required,
        metadata={
            "description": "scope:id, split at its first colon; global stands alone",
            "pattern": TARGET_PATTERN,
            "maxLength": 139,
            "examples": ["run:r-42"],
            **metadata,
        },
    )


def reason() -> Text:
    """Return the field of a reason, which must be sent."""
    return Text(
        required=True,
        validate=_valid(lambda text: check_reason(check_no_token(text))),
        metadata={
            "description": "why, one line of plain text",
            "pattern": REASON_PATTERN,
            "minLength": 1,
            "maxLength": MAX_LENGTH,
            "examples": ["mails the wrong customers"],
        },
    )


def line(*, shortest: int, longest: int, description: str, required: bool = False) -> Text:
    """Return the field of one line of plain text, in which no token may stand."""
    return Text(
        required=required,
        validate=_valid(lambda text: check_line(check_no_token(text), shortest=shortest, longest=longest)),
        metadata={
            "description": description,
            "pattern": LINE_PATTERN,
            "minLength": shortest,
            "maxLength": longest,
        },
    )


def identifier(what: str, *, required: bool = False, logged: bool = False, description: str = "") -> Text:
    """Return the field of an id.

    Args:
        what: the word for it in an error message.
        required: whether it must be sent.
        logged: whether it is written into the log, where no token may stand.
        description: what it is.
    """
    return Text(
        required=required,
        validate=_valid(lambda text: check_id(check_no_token(text) if logged else text, what)),
        metadata={"description": description, "pattern": ID_PATTERN, "minLength": 1, "maxLength": 128},
    )


def moment(description: str, *, required: bool = False) -> Text:
    """Return the field of a moment."""
    return Text(
        required=required,
        validate=_valid(parse_moment),
        metadata={"description": description, "format": "date-time", "pattern": MOMENT_PATTERN, "maxLength": 27},
    )


def grammar(pattern: str) -> re.Pattern[str]:
    """Return an anchored pattern for ``fullmatch``: Python's ``$`` would let a newline pass."""
    return re.compile(pattern.removeprefix("^").removesuffix("$"), re.ASCII)


def matching(pattern: str, description: str, *, length: int, **options: Any) -> Text:
    """Return a text field of a grammar that is an anchored pattern.

    Args:
        pattern: the grammar, between ``^`` and ``$``.
        description: what it is.
        length: the longest text that fits it, characters.
        options: further options of the field.
    """
    fits = grammar(pattern).fullmatch

    def validate(text: str) -> None:
        if fits(text) is None:
            raise ma.ValidationError(f"It does not match {pattern}.")

    metadata = {"description": description, "pattern": pattern, "maxLength": length}
    return Text(validate=validate, metadata=metadata, **options)


def count(*, low: int, high: int = MAX_INTEGER, description: str = "", **options: Any) -> Whole:
    """Return an integer field of a body."""
    return Whole(
        validate=ma.validate.Range(low, high),
        metadata={"description": description, "minimum": low, "maximum": high},
        **options,
    )


def digits(*, low: int, high: int = MAX_INTEGER, description: str = "", **options: Any) -> Digits:
    """Return an integer field of a query."""
    return Digits(
        validate=ma.validate.Range(low, high),
        metadata={"description": description, "minimum": low, "maximum": high},
        **options,
    )


def one_of(names: Sequence[str], description: str, **options: Any) -> Text:
    """Return a text field that is one of a few words."""
    return Text(validate=ma.validate.OneOf(names), metadata={"description": description}, **options)


def role() -> Text:
    """Return the field of a role."""
    names = [each.value for each in Role]
    return Text(required=True, validate=ma.validate.OneOf(names), metadata={"description": "what the token is for"})
