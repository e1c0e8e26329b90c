"""What an id and a target may be, and the path that stands above a run."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import pytest

from haltline.errors import InvalidTarget
from haltline.scopes import (
    GLOBAL,
    ID_PATTERN,
    TARGET_PATTERN,
    Scope,
    Target,
    check_capability,
    check_id,
    check_namespace,
    parse_target,
    path,
    target,
)

GOOD_IDS: Final = ("r", "R-42", "0", "a.b_c:d-e", "9..", "A" * 128, "nul", "r-42:retry:3")

BAD_IDS: Final = {
    "empty": "",
    "129 characters": "a" * 129,
    "one megabyte": "a" * 1_000_000,
    "leading dot": ".a",
    "leading hyphen": "-a",
    "leading underscore": "_a",
    "leading colon": ":a",
    "leading space": " a",
    "space at the end": "a ",
    "space inside": "a b",
    "tab": "a\tb",
    "newline at the end": "a\n",
    "newline at the start": "\na",
    "carriage return at the end": "a\r",
    "line separator at the end": "a\u2028",
    "next line at the end": "a\x85",
    "NUL": "a\x00",
    "NUL alone": "\x00",
    "percent-encoded NUL": "a%00",
    "percent": "%61",
    "escape": "a\x1b[31m",
    "DEL": "a\x7f",
    "asterisk": "*",
    "prefix and asterisk": "run-*",
    "question mark": "run-?",
    "brackets": "run-[12]",
    "SQL wildcard": "run%",
    "slash": "a/b",
    "dots and slashes": "../a",
    "backslash": "a\\b",
    "quote": "a'b",
    "double quote": 'a"b',
    "comma": "a,b",
    "at sign": "a@b",
    "plus": "a+b",
    "e with acute": "caf\u00e9",
    "e and a combining acute": "cafe\u0301",
    "Cyrillic a": "\u0430cme",
    "Greek omicron": "acm\u03bf",
    "full-width a": "\uff41cme",
    "mathematical a": "\U0001d41acme",
    "Kelvin sign": "\u212a",
    "long s": "\u017f",
    "dotless i": "\u0131d",
    "superscript two": "a\u00b2",
    "Arabic digit": "a\u0663",
    "zero-width space": "a\u200bb",
    "zero-width joiner": "a\u200db",
    "byte order mark": "\ufeffa",
    "right-to-left override": "a\u202eb",
    "soft hyphen": "a\u00adb",
    "non-breaking hyphen": "a\u2011b",
    "lone surrogate": "a\ud800",
    "emoji": "\U0001f6d1",
}

NOT_TEXT: Final = (None, True, 0, 1.5, b"a", ["a"], {"a": 1}, 10**5000)


@pytest.mark.parametrize("text", GOOD_IDS)
def test_an_id_within_the_grammar_comes_back_as_it_is(text: str) -> None:
    """An accepted id is returned byte for byte."""
    assert check_id(text) is text


@pytest.mark.parametrize("text", BAD_IDS.values(), ids=BAD_IDS.keys())
def test_an_id_outside_the_grammar_is_refused(text: str) -> None:
    """What is outside the grammar is refused as an id, as a capability, as a namespace and in every target."""
    for check in (check_id, check_capability, check_namespace):
        with pytest.raises(InvalidTarget):
            check(text)
    for scope in ("capability", "run", "tenant", "feature", "global"):
        with pytest.raises(InvalidTarget):
            parse_target(f"{scope}:{text}")


@pytest.mark.parametrize("text", BAD_IDS.values(), ids=BAD_IDS.keys())
def test_the_message_is_short_and_printable(text: str) -> None:
    """A refused id is shown bounded and in ASCII, so that it can neither flood nor forge a log."""
    with pytest.raises(InvalidTarget) as caught:
        check_id(text)
    message = str(caught.value)
    assert len(message) < 250
    assert message.isascii()
    assert message.isprintable()


@pytest.mark.parametrize("value", NOT_TEXT, ids=lambda value: type(value).__name__)
def test_what_is_not_text_is_refused(value: object) -> None:
    """Numbers, bytes, lists, objects and nothing are no ids and no targets."""
    for check in (check_id, check_capability, check_namespace, parse_target):
        with pytest.raises(InvalidTarget, match="of type"):
            check(value)


def test_a_subclass_of_str_is_no_id() -> None:
    """Only plain text is taken: a subclass could compare as something else."""

    class Sly(str):
        __slots__ = ()

    with pytest.raises(InvalidTarget):
        check_id(Sly("r-42"))


def test_128_characters_are_the_end() -> None:
    """The longest id has 128 characters, the longest namespace 32."""
    assert check_id("a" * 128)
    assert check_capability("a" * 128)
    assert check_namespace("a" * 32)
    for check, length in ((check_id, 129), (check_capability, 129), (check_namespace, 33)):
        with pytest.raises(InvalidTarget):
            check("a" * length)


def test_case_is_kept_and_counts() -> None:
    """Ids that differ in case are different ids; capabilities and namespaces have no upper case."""
    assert parse_target("run:R-42") != parse_target("run:r-42")
    for check in (check_capability, check_namespace):
        with pytest.raises(InvalidTarget):
            check("Send")
    with pytest.raises(InvalidTarget, match="lower case"):
        parse_target("capability:Send_Email")


@pytest.mark.parametrize("text", ["-a", "a_b", "a.b", "a:b", "A"])
def test_a_namespace_is_narrower_than_an_id(text: str) -> None:
    """A namespace has lower-case letters, digits and hyphens only."""
    with pytest.raises(InvalidTarget):
        check_namespace(text)


def test_look_alikes_are_never_folded_together() -> None:
    """No text that normalises to a valid id is accepted in its place."""
    for text in BAD_IDS.values():
        for form in ("NFC", "NFD", "NFKC", "NFKD"):
            if re.fullmatch(ID_PATTERN, unicodedata.normalize(form, text)) and not text.endswith("\n"):
                with pytest.raises(InvalidTarget):
                    check_id(text)


@pytest.mark.parametrize(
    ("text", "scope", "identifier"),
    [
        ("capability:send_email", Scope.CAPABILITY, "send_email"),
        ("run:r-42", Scope.RUN, "r-42"),
        ("tenant:acme", Scope.TENANT, "acme"),
        ("feature:bulk-outreach", Scope.FEATURE, "bulk-outreach"),
        ("run:a:b:c", Scope.RUN, "a:b:c"),
        ("tenant:global", Scope.TENANT, "global"),
        ("run:run:r-42", Scope.RUN, "run:r-42"),
    ],
)
def test_a_target_splits_at_its_first_colon(text: str, scope: Scope, identifier: str) -> None:
    """The scope ends at the first colon, and the rest is the id, colons included."""
    parsed = parse_target(text)
    assert parsed == Target(scope, identifier)
    assert str(parsed) == text


def test_global_stands_alone() -> None:
    """``global`` is a target by itself and takes no id, not even an empty one."""
    assert parse_target("global") is GLOBAL
    assert str(GLOBAL) == "global"
    for text in ("global:", "global:all", "global:*"):
        with pytest.raises(InvalidTarget, match="takes no id"):
            parse_target(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "run", "run:", ":r-42", "Run:r-42", "RUN:r-42", "run :r-42", "run: r-42", "run;r-42", "worker:w-1"),
        *("*", "Global", " global", "global\n", "run:r-42\n", "\nrun:r-42", "r\u0443n:r-42", "run\uff1ar-42"),
        "run\x00:r-42",
    ],
)
def test_a_target_outside_the_grammar_is_refused(text: str) -> None:
    """An unknown scope, a missing id and every near miss is refused."""
    with pytest.raises(InvalidTarget):
        parse_target(text)


def test_a_target_from_its_parts() -> None:
    """A scope and an id make the same target as their text."""
    assert target("run", "r-42") == target(Scope.RUN, "r-42") == parse_target("run:r-42")
    assert target("global") is GLOBAL
    with pytest.raises(InvalidTarget, match="needs an id"):
        target("run")
    with pytest.raises(InvalidTarget, match="takes no id"):
        target(Scope.GLOBAL, "x")
    with pytest.raises(InvalidTarget, match="unknown"):
        target("worker", "w-1")


def test_the_patterns_are_the_grammar() -> None:
    """The patterns for other languages accept what the checks accept, and nothing else."""
    ids, targets = re.compile(ID_PATTERN[1:-1], re.ASCII), re.compile(TARGET_PATTERN[1:-1], re.ASCII)
    for text in (*GOOD_IDS, *BAD_IDS.values()):
        good = text in GOOD_IDS
        assert (ids.fullmatch(text) is not None) is good
        assert (targets.fullmatch(f"run:{text}") is not None) is good
    assert targets.fullmatch("global")
    assert not targets.fullmatch("global:")
    assert not targets.fullmatch("capability:Send")
    assert not targets.fullmatch("worker:w-1")


def test_scopes_are_ordered_by_breadth() -> None:
    """The broadest scope comes first: global, tenant, feature, run, capability."""
    assert sorted(Scope, key=lambda scope: scope.breadth) == [
        Scope.GLOBAL,
        Scope.TENANT,
        Scope.FEATURE,
        Scope.RUN,
        Scope.CAPABILITY,
    ]


def test_a_path_names_the_broadest_first() -> None:
    """A run's path is global, its tenant, its feature and itself, in that order."""
    assert path("r-42", tenant="acme", feature="outreach").keys == (
        "global",
        "tenant:acme",
        "feature:outreach",
        "run:r-42",
    )
    assert path("r-42").keys == ("global", "run:r-42")
    assert path("r-42", feature="outreach").keys == ("global", "feature:outreach", "run:r-42")


def test_a_path_says_the_same_twice() -> None:
    """The targets of a path and its keys are the same, and ordered by breadth."""
    made = path("r-42", tenant="acme", feature="outreach")
    assert tuple(str(each) for each in made.targets) == made.keys
    assert [each.scope.breadth for each in made.targets] == sorted(each.scope.breadth for each in made.targets)


@pytest.mark.parametrize(("run", "tenant", "feature"), [("r 42", None, None), ("r", "", None), ("r", None, "f*")])
def test_a_path_of_bad_ids_is_refused(run: str, tenant: str | None, feature: str | None) -> None:
    """No run is bound to a path with an id outside the grammar; an empty tenant is not the same as none."""
    with pytest.raises(InvalidTarget):
        path(run, tenant=tenant, feature=feature)
