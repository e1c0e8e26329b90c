"""A worker's reports survive the way through a pipe."""

from __future__ import annotations

import pytest

from sample.reports import Report, State, decode, encode


def test_there_and_back() -> None:
    """What is written is read, in one line whatever the reason holds."""
    report = Report("r-1", State.STOPPED, entered=2, read=9, sent=7, unsent=1, failed=1, why='a "reason"\u2028of Zoë')
    line = encode(report)
    assert "\n" not in line
    assert decode(line) == report


@pytest.mark.parametrize("line", ["", "Traceback", "[]", "{}", '{"run":"r-1","state":"asleep"}', '{"state":"sending"}'])
def test_not_a_report(line: str) -> None:
    """Anything else is refused, and no crash."""
    with pytest.raises(ValueError, match="not a worker's report"):
        decode(line)
