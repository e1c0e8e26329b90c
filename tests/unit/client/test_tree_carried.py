"""A run as text, and in the baggage header: what is read, what is refused, and that nothing is lost in silence."""

from __future__ import annotations

from email.message import Message
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haltline import Carried, InvalidCarrier, KillSwitch, Run, Unverified, extract, inject
from haltline.carried import TEXT_MAX
from haltline.lineage import Lineage
from haltline.scopes import DEPTH_MAX
from haltline.testing import FakeSwitch, fake_switch

EPOCH: Final = "0123456789abcdef"
TEXT: Final = f"1/{EPOCH}/42/acme/outreach/r-1/.research/r-9~"
CARRIED: Final = Carried(Lineage(("r-1", "r-1.research", "r-9"), "acme", "outreach"), EPOCH, 42)
ALONE: Final = f"1/{EPOCH}/0///r-1~"

ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,20}", fullmatch=True)


@pytest.fixture
def run() -> Run:
    """Return an armed run."""
    switch = fake_switch()
    run = switch.run("r-1", tenant="acme")
    run.arm()
    return run


def test_the_text_is_pinned() -> None:
    """The text is read by other processes, of other versions: it may not change unseen."""
    assert CARRIED.text == str(CARRIED) == TEXT
    assert Carried.parse(TEXT) == CARRIED
    assert Carried.parse(ALONE) == Carried(Lineage(("r-1",)), EPOCH, 0)


@given(
    ancestors=st.lists(ids, max_size=DEPTH_MAX - 1, unique=True),
    names=st.lists(ids, max_size=5),
    tenant=st.none() | ids,
    feature=st.none() | ids,
    seq=st.integers(0, 2**53 - 1),
)
def test_every_run_survives_its_text(
    ancestors: list[str], names: list[str], tenant: str | None, feature: str | None, seq: int
) -> None:
    """What is written is read again, byte for byte, whether the ids were made by child() or not."""
    lineage = Lineage((*ancestors, "root"), tenant, feature)
    for name in names:
        lineage = lineage.child(name)
    if "root" in ancestors or len(lineage.ids) > DEPTH_MAX or len(lineage.id) > 128:
        return
    carried = Carried(lineage, EPOCH, seq)
    assert Carried.parse(carried.text) == carried
    assert extract({"baggage": f"a=b, haltline={carried.text};p=1"}) == carried


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "malformed"),
        (None, "NoneType"),
        (TEXT.encode(), "bytes"),
        (f"2/{EPOCH}/42///r-1~", "newer"),
        (f"1/{EPOCH.upper()}/42///r-1~", "malformed"),
        (f"1/{EPOCH}/042///r-1~", "malformed"),
        (f"1/{EPOCH}/-1///r-1~", "malformed"),
        (f"1/{EPOCH}/٤٢///r-1~", "malformed"),
        (f"1/{EPOCH}/{2**53}///r-1~", "malformed"),
        (f"1/{EPOCH}/42///~", "malformed"),
        (f"1/{EPOCH}/42///.r-1~", "id"),
        (f"1/{EPOCH}/42///r-1/~", "id"),
        (f"1/{EPOCH}/42/a b//r-1~", "id"),
        (f"1/{EPOCH}/42///r-1/r-1.a~", "malformed"),
        (f"1/{EPOCH}/42///r-1/r-2/r-1~", "stand above itself"),
        (f"1/{EPOCH}/42///r-1\n~", "id|malformed"),
        (f"1/{EPOCH}/42///r-1~\n", "malformed"),
        (f"1/{EPOCH}/42///{'/'.join(f'r-{n}' for n in range(DEPTH_MAX + 1))}~", "33 deep"),
        (f"1/{EPOCH}/42///r{'/.a' * 200}~", "deep"),
        (f"1/{EPOCH}/42///{'a' * TEXT_MAX}~", "at most 4000"),
    ],
)
def test_what_is_no_carried_run_is_refused(text: Any, told: str) -> None:
    """Malformed, of another version, too deep, too long or a cycle: InvalidCarrier, which says what."""
    with pytest.raises(InvalidCarrier, match=told) as caught:
        Carried.parse(text)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("text", [TEXT, ALONE])
def test_a_text_cut_short_is_no_other_run(text: str) -> None:
    """However much of its end is lost on the way: refused, never read as the run's parent or another run."""
    for length in range(len(text)):
        with pytest.raises(InvalidCarrier):
            Carried.parse(text[:length])


def test_a_path_too_long_to_travel_is_refused() -> None:
    """The longest path of unrelated ids is refused when it is sent; the longest that child() makes is not."""
    long = Carried(Lineage(tuple(f"{n:0128}" for n in range(DEPTH_MAX)), "t" * 128, "f" * 128), EPOCH, 2**53 - 1)
    with pytest.raises(InvalidCarrier, match="takes 4422 characters to carry"):
        str(long)
    lineage = Lineage(("r" * 66,), "t" * 128, "f" * 128)
    for _ in range(DEPTH_MAX - 1):
        lineage = lineage.child("x")
    assert len(lineage.id) == 128
    assert len(Carried(lineage, EPOCH, 2**53 - 1).text) < 500


# -- the header -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"baggage": f"haltline={TEXT}"},
        {"Baggage": f"a=1,haltline={TEXT},b=2"},
        {"BAGGAGE": f" a=1;p;q=2 ,\t haltline = {TEXT} ; prop=1;other ,, b="},
        {"baggage": f"haltline={TEXT.replace('/', '%2F')}"},
        {"baggage": f"haltline={TEXT.replace('/', '%2f').replace('-', '%2D')}"},
        {"HTTP_BAGGAGE": f"haltline={TEXT}", "wsgi.version": (1, 0), "HTTP_HOST": "x"},
        {"baggage": f"haltline={TEXT},haltline={TEXT}"},
        [("host", "x"), ("baggage", "a=1"), ("baggage", f"haltline={TEXT}"), ("Baggage", "b=2")],
        [(b"host", b"\xff"), (b"baggage", f"haltline={TEXT}".encode())],
        {"baggage": f"a=%zz,=,;,haltline={TEXT},\xff"},
        {"baggage": f"Haltline=x,haltlines=y,haltline={TEXT}"},
    ],
)
def test_the_header_is_found(headers: Any) -> None:
    """In any case, beside any other members, encoded or not, in several headers, in WSGI and in ASGI."""
    assert extract(headers) == CARRIED


@pytest.mark.parametrize("headers", [{}, [], {"baggage": ""}, {"baggage": "a=1,haltlines=2"}, {"x": "haltline=1"}])
def test_a_missing_header_is_none(headers: Any) -> None:
    """Where nothing is carried, that is said by None."""
    assert extract(headers) is None


@pytest.mark.parametrize(
    "value",
    [
        "haltline",
        "haltline=",
        "haltline=;p=1",
        "a=1,haltline=x",
        f"haltline={TEXT[:-9]}",
        f"haltline={TEXT}%",
        f"haltline={TEXT}%zz",
        f"haltline={TEXT.replace('/', '%252F')}",
        f"haltline={TEXT},haltline={ALONE}",
        f"haltline={TEXT}\xff",
        f"haltline={TEXT}%FF",
        f'haltline="{TEXT}"',
        "haltline=" + "%31" * 5000,
        "haltline=" + "1" * 20_000,
    ],
)
def test_a_malformed_header_raises(value: str) -> None:
    """A run that was sent and cannot be read is an error, in whichever of several headers; never None."""
    with pytest.raises(InvalidCarrier):
        extract({"baggage": value})
    with pytest.raises(InvalidCarrier):
        extract([("baggage", "b=2"), ("baggage", value)])


def test_what_are_no_headers_is_refused() -> None:
    """A text, and a header that is no text: refused, not read as empty."""
    with pytest.raises(TypeError, match="not headers"):
        extract(TEXT)  # type: ignore[arg-type]
    with pytest.raises(InvalidCarrier, match="of type list"):
        extract({"baggage": [f"haltline={TEXT}"]})


def test_a_run_is_injected_beside_other_members(run: Run) -> None:
    """What others have put there stays as it is, another run is replaced, and the run comes first."""
    ours = f"haltline={run.carried.text}"
    assert inject({}, run=run) == {"baggage": ours}
    assert inject({"Baggage": f"a=1;p, haltline={TEXT},b=%20", "x": "y"}, run=run) == {
        "Baggage": f"{ours},a=1;p,b=%20",
        "x": "y",
    }
    assert inject({"Baggage": "a=1", "baggage": f"b=2,haltline={TEXT}"}, run=run) == {"Baggage": f"{ours},a=1,b=2"}
    headers = {"baggage": "a=1"}
    assert extract(inject(inject(headers, run=run), run=run)) == run.carried


def test_headers_that_keep_repeats_get_one(run: Run) -> None:
    """In a collection that may hold a name twice, one header is left."""
    headers = Message()
    headers["baggage"] = "a=1"
    headers["Baggage"] = "b=2"
    inject(headers, run=run)  # type: ignore[type-var]  # its values may also be header objects
    assert headers.items() == [("baggage", f"haltline={run.carried.text},a=1,b=2")]


@pytest.mark.parametrize("other", ["a=" + "x" * 8150, ",".join(f"k{n}=1" for n in range(64)), "a=" + "\udce4" * 2800])
def test_baggage_that_may_be_dropped_is_refused(run: Run, other: str) -> None:
    """Above what every party must pass on the run might be lost in silence: refused, and the headers are as before."""
    headers = {"baggage": other}
    with pytest.raises(InvalidCarrier, match="dropped on the way"):
        inject(headers, run=run)
    assert headers == {"baggage": other}


def test_most_baggage_fits(run: Run) -> None:
    """63 other members do."""
    headers = inject({"baggage": ",".join(f"k{n}=1" for n in range(63))}, run=run)
    assert headers["baggage"].count(",") == 63


def test_the_current_run_is_injected() -> None:
    """Without one named, the current run; and where none is current, that is a stop and no silence."""
    switch = fake_switch()
    with pytest.raises(Unverified, match="no run is current"):
        inject({})
    with pytest.raises(Unverified, match="not armed"):
        inject({}, run=switch.run("r-1"))
    with switch.run("r-1") as run:
        assert extract(inject({})) == run.carried


@pytest.mark.parametrize("carrier", [{}, {"baggage": "a=1"}, {"HALTLINE_RUNS": TEXT}])
def test_nothing_to_join_is_a_stop(carrier: dict[str, str]) -> None:
    """A missing run context means stopped."""
    switch = fake_switch()
    with pytest.raises(Unverified, match="nothing here names a run"):
        switch.join(carrier)


def test_an_environment_is_joined(run: Run) -> None:
    """The variable counts where no header does, and an empty one is malformed, not missing."""
    switch: FakeSwitch | KillSwitch = fake_switch()
    other = Carried(Lineage(("r-7",)), EPOCH, 3)
    assert switch.join({"HALTLINE_RUN": TEXT}).carried == CARRIED
    assert switch.join({"HALTLINE_RUN": TEXT, "HTTP_BAGGAGE": f"haltline={other}"}).carried == other
    for text in ("", "r-1", TEXT[:-1]):
        with pytest.raises(InvalidCarrier):
            switch.join({"HALTLINE_RUN": text})
