from __future__ import annotations

from rlcore.records.markdown import table_row


def test_text_from_outside_stays_in_its_cell() -> None:
    assert table_row(["a|b\n| c", 3]) == r"| a\|b \| c | 3 |"
    assert table_row(["\\|"]) == r"| \\\| |"
    assert table_row(["<img src=x>", "R&D"]) == "| &lt;img src=x&gt; | R&amp;D |"
    assert (
        table_row(["![x](http://tracker)", "60.0 [55.0, 65.0]"])
        == r"| ![x]\(http://tracker) | 60.0 [55.0, 65.0] |"
    )
