"""Stamps as text: what can be read again, what is refused as forged, and which key seals."""

from __future__ import annotations

import base64
import hmac
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haltline import Refusal, StampRefused
from haltline.canonical import canonical, parse
from haltline.keys import StampKey
from haltline.lineage import Lineage
from haltline.plans import KEPT_MAX, RIPE_S, Plans, discarded_of
from haltline.stamps import STAMP_MAX, Stamp, check_payload_hash, open_stamp, seal

FOR_EVER = 9e12
OLD = StampKey("k-old", b"o" * 32, FOR_EVER)
NEW = StampKey("k-new", b"n" * 32, FOR_EVER)
EPOCH = "0123456789abcdef"
STAMP = Stamp("default", EPOCH, 17, 1_795_000_000, Lineage(("r-1", "r-1.mail"), "acme", "outreach"), "send_email", "h1")


def opened(text: object, *keys: StampKey, namespace: str = "default", epoch: str = EPOCH) -> Stamp:
    """Open a stamp with these keys, by default the old one."""
    return open_stamp(text, keys or (OLD,), namespace=namespace, epoch=epoch)[0]


def refusal(text: object, *keys: StampKey, **where: str) -> Refusal:
    """Return why a stamp is refused."""
    with pytest.raises(StampRefused) as refused:
        opened(text, *keys, **where)
    return refused.value.reason


def resealed(text: str, sealing: StampKey, members: dict[str, Any]) -> str:
    """Return a stamp of which some members were changed, sealed with ``key``; None takes a member away."""
    payload = text.split(".")[1]
    told = parse(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    told.update(members)
    inner = canonical({name: value for name, value in told.items() if value is not None})
    head = "hs1." + base64.urlsafe_b64encode(inner).rstrip(b"=").decode()
    mac = base64.urlsafe_b64encode(hmac.digest(sealing.key, head.encode(), "sha256")).rstrip(b"=").decode()
    return f"{head}.{mac}"


def test_a_stamp_is_read_as_it_was_made() -> None:
    """Everything in it comes back, and the key that it was sealed with."""
    text = seal(STAMP, OLD)
    assert open_stamp(text, (NEW, OLD), namespace="default", epoch=EPOCH) == (replace(STAMP, key_id="k-old"), OLD)
    assert text.startswith("hs1.")
    assert len(text) < 400


def test_a_stamp_of_a_lone_run_is_read_as_it_was_made() -> None:
    """Tenant, feature and payload may be missing."""
    lone = Stamp("default", EPOCH, 1, 0, Lineage(("r-1",)), "send_email")
    assert opened(seal(lone, OLD)) == replace(lone, key_id="k-old")


def test_the_deepest_run_fits() -> None:
    """A run 32 deep with the longest ids has a stamp that is not refused for its length."""
    ids = tuple(f"r{number:02d}" + "x" * 125 for number in range(32))
    stamp = Stamp("n" * 32, EPOCH, 2**53 - 1, 2**40, Lineage(ids, "t" * 128, "f" * 128), "c" * 128, "h" * 255)
    text = seal(stamp, OLD)
    assert opened(text, namespace="n" * 32).lineage.ids == ids
    assert len(text) <= STAMP_MAX


def test_a_timers_stamp_never_leaves_the_process() -> None:
    """What names no capability is not sealed."""
    with pytest.raises(ValueError, match="capability"):
        seal(replace(STAMP, capability=None), OLD)


@given(st.data())
def test_a_changed_character_is_refused(data: st.DataObject) -> None:
    """Whatever single character is changed, taken out or added."""
    text = seal(STAMP, OLD)
    at = data.draw(st.integers(0, len(text) - 1))
    new = data.draw(st.sampled_from(["", "A", "B", "-", "_", ".", "=", "é", " ", "\n", text[at] + "A"]))
    changed = text[:at] + new + text[at + 1 :]
    if changed != text:
        assert refusal(changed) is Refusal.FORGED


@given(st.text() | st.binary() | st.none() | st.integers() | st.from_regex(r"hs1\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*"))
def test_garbage_is_refused(garbage: object) -> None:
    """No text that nobody sealed raises anything but a refusal."""
    assert refusal(garbage) is Refusal.FORGED


def test_who_does_not_have_the_key_cannot_make_one() -> None:
    """An unknown key, and a known one's name over other bytes."""
    assert refusal(seal(STAMP, NEW)) is Refusal.FORGED
    assert refusal(seal(STAMP, StampKey("k-old", b"x" * 32, FOR_EVER))) is Refusal.FORGED
    assert refusal(seal(STAMP, OLD) + "A" * STAMP_MAX) is Refusal.FORGED


def test_another_log_is_named() -> None:
    """A stamp of another epoch or namespace is foreign, whether or not its key is known here."""
    text = seal(STAMP, OLD)
    assert refusal(text, OLD, epoch="f" * 16) is Refusal.FOREIGN
    assert refusal(text, NEW, epoch="f" * 16) is Refusal.FOREIGN
    assert refusal(text, OLD, namespace="other") is Refusal.FOREIGN


@pytest.mark.parametrize(
    "members",
    [
        {"seq": None}, {"seq": -1}, {"seq": True}, {"seq": "17"}, {"made_at": None}, {"made_at": -1}, {"runs": []},
        {"runs": "r-1"}, {"runs": ["r-1", "r-1"]}, {"runs": ["r 1"]}, {"runs": [1]}, {"runs": [[]]},
        {"runs": [f"r-{number}" for number in range(33)]}, {"tenant": 1}, {"tenant": "a b"}, {"feature": []},
        {"capability": None}, {"capability": "Send"}, {"hash": ""}, {"hash": 1}, {"more": 1}, {"key": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_malformed_one_is_refused_even_if_sealed(members: dict[str, Any]) -> None:
    """Whoever has a key may still have made nonsense."""
    assert refusal(resealed(seal(STAMP, OLD), OLD, members)) is Refusal.FORGED


@pytest.mark.parametrize("malformed", ["", "a b", "é", "x" * 256, None, 7, "a\n"])
def test_a_payloads_hash_is_checked(malformed: object) -> None:
    """It is short printable ASCII, as an idempotency key is."""
    with pytest.raises(ValueError, match="printable ASCII"):
        check_payload_hash(malformed)


# -- which key seals ---------------------------------------------------------------------------------------------------


def test_a_new_key_is_used_once_others_have_it() -> None:
    """For some minutes after a rotation a process seals with the key before it, which everybody has."""
    plans = Plans()
    assert plans.key((OLD,), 100.0) is OLD
    assert plans.key((NEW, OLD), 200.0) is OLD
    assert plans.key((NEW, OLD), 200.0 + RIPE_S - 0.1) is OLD
    assert plans.key((NEW, OLD), 200.0 + RIPE_S) is NEW


def test_a_new_process_begins_with_the_older_key() -> None:
    """It cannot tell how new the newest is; the only one there is it uses at once."""
    other = StampKey("k-oldest", b"q" * 32, FOR_EVER)
    plans = Plans()
    assert plans.key((NEW, OLD, other), 100.0) is OLD
    assert plans.key((NEW, OLD, other), 100.0 + RIPE_S) is NEW
    assert Plans().key((NEW,), 100.0) is NEW


# -- what was discarded ------------------------------------------------------------------------------------------------


def test_what_was_discarded_is_kept_once_and_bounded() -> None:
    """A stamp that a queue delivers again is one record; of very many the newest stay."""
    plans = Plans()
    for number in range(KEPT_MAX + 5):
        for _ in range(2):
            plans.note(discarded_of(STAMP, Refusal.DISCARDED, "killed", at=1.0, text=f"hs1.{number}"))
    kept = plans.discarded()
    assert [each.stamp for each in kept] == [f"hs1.{number}" for number in range(5, KEPT_MAX + 5)]
    assert (kept[0].run, kept[0].capability, kept[0].payload_hash) == ("r-1.mail", "send_email", "h1")
    assert kept[0].lineage == STAMP.lineage


def test_timers_are_kept_each() -> None:
    """Without a stamp to tell them apart every one is a record."""
    plans = Plans()
    for _ in range(3):
        plans.note(discarded_of(STAMP, Refusal.DISCARDED, "killed", at=1.0, what="send"))
    assert len(plans.discarded()) == 3
