"""Slow statements read from the log: grouped, and without the values in them."""

from __future__ import annotations

import pytest

from homeport.drivers.addons.postgres.slow import shape, slowest

LOG = """\
2026-11-21 02:41:31.871 UTC [12] web_a@shop LOG:  duration: 1500.300 ms  statement: SELECT * FROM orders
\tWHERE token = 'top-secret' AND id = 42
2026-11-21 02:41:32.871 UTC [12] web_a@shop LOG:  duration: 2500.000 ms  execute <unnamed>: SELECT * FROM orders
	WHERE token = 'other' AND id = 7
2026-11-21 02:41:33.000 UTC [13] LOG:  checkpoint starting: time
2026-11-21 02:41:34.000 UTC [12] web_a@shop ERROR:  duration: 9.0 ms  statement: DELETE FROM no_such
2026-11-21 02:41:35.000 UTC [12] web_a@shop LOG:  duration: 1001.000 ms  statement: VACUUM orders
"""


def test_the_same_statement_with_other_values_is_one() -> None:
    """What took longest together comes first; errors and other messages are none."""
    first, second = slowest(LOG.splitlines())
    assert first.statement == "SELECT * FROM orders WHERE token = ? AND id = ?"
    assert (first.count, first.total_ms, first.longest_ms) == (2, 4000.3, 2500.0)
    assert (second.statement, second.count) == ("VACUUM orders", 1)


@pytest.mark.parametrize(
    ("statement", "wanted"),
    [
        ("SELECT 'it''s', E'a\\'b', $1, 3.5e2, 'open", "SELECT ?, …, $1, ?,"),
        ("INSERT INTO t2 VALUES (1, 2, 3)", "INSERT INTO t2 VALUES (?, …)"),
        ("DO $body$ password 'x' $body$", "DO ?"),
        ("SELECT 1 -- token abc\n/* and 'more */ FROM t", "SELECT ? FROM t"),
        ("x" * 400, "x" * 300 + "…"),
    ],
)
def test_values_are_left_out(statement: str, wanted: str) -> None:
    """No literal and no comment is shown: both may hold what a user typed."""
    assert shape(statement) == wanted
