"""The table's numbers against counting by hand."""

from __future__ import annotations

import pytest

from selfflow_mm.evaluation.intervals import wilson
from selfflow_mm.evaluation.world.summary import as_json, as_text, summarise

ROW = {"contacts": [5.0, 9.0], "onsets": [5.0], "matched": 1, "explained": 1, "offset": -0.5, "colour": True}


def test_shares_ratios_and_means() -> None:
    rows = [ROW, ROW | {"colour": False, "contacts": [1.0], "matched": 1}, ROW | {"colour": None, "offset": None}]
    table = summarise({"real": rows, "shuffled sound": rows, "sound for real pictures": rows})
    column = table["real"]
    colour, contacts, late = (
        column[k] for k in ("colours right", "contacts heard within one frame", "sound late by, frames (absolute)")
    )
    assert colour and (colour.value, colour.n) == (0.5, 2) and (colour.low, colour.high) == wilson(1, 2)
    assert contacts and (contacts.value, contacts.n) == (pytest.approx(3 / 5), 5)
    assert contacts.low <= contacts.value <= contacts.high
    assert late and (late.value, late.n) == (0.5, 2)
    assert column["words right"] is None
    assert set(table["shuffled sound"]) == {k for k in column if "within one frame" in k or "late" in k}
    assert table["sound for real pictures"] == table["shuffled sound"]
    assert as_json(table)["real"]["words right"] is None
    assert "50 % (9-91), n 2" in as_text(table) and "words right" not in as_text(table)
