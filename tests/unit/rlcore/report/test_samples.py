from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from made_run import make_run, sample

from rlcore.records.files import append_rows, write_rows
from rlcore.report.sample_table import table_of
from rlcore.report.samples import Entry, SampleFile, choose


def test_all_rows_are_listed_and_read_by_their_place(tmp_path: Path) -> None:
    file = SampleFile(make_run(tmp_path / "rl"))
    assert file.refresh()
    written = [json.loads(line) for line in file.path.read_text().splitlines()]
    assert file.rows(file.entries) == written
    assert list(file.evaluations()) == [0, 12]
    assert not file.refresh()


def test_rows_are_added_as_the_file_grows_and_a_line_that_is_being_written_waits(tmp_path: Path) -> None:
    file = SampleFile(tmp_path)
    assert not file.refresh() and file.entries == []
    append_rows(file.path, [sample(1, 0)])
    whole = json.dumps(sample(1, 1))
    with file.path.open("a") as out:
        out.write(whole[:30])
    assert file.refresh() and len(file.entries) == 1
    with file.path.open("a") as out:
        out.write(whole[30:] + "\n")
    assert file.refresh() and len(file.entries) == 2
    assert file.rows(file.entries)[1] == sample(1, 1)


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    file = SampleFile(tmp_path)
    write_rows(file.path, [sample(step, 0) for step in range(9)])
    file.refresh()
    write_rows(file.path, [sample(1, 5)])  # a resumed run drops what it does again
    assert file.refresh()
    assert [entry.prompt for entry in file.entries] == ["train-0005"]


def test_lines_that_are_no_rows_are_counted(tmp_path: Path) -> None:
    file = SampleFile(tmp_path)
    file.path.write_text('{"step": 1}\nnonsense\n[1]\n' + json.dumps(sample(1, 0)) + "\n")
    file.refresh()
    assert file.num_damaged == 3 and len(file.entries) == 1


def entries(num_steps: int, prompts: int, group: int, num_eval: int) -> list[Entry]:
    found = [Entry(0, 0, "eval", f"e{p}") for p in range(num_eval)]
    for step in range(1, num_steps + 1):
        found += [Entry(0, step, "train", f"s{step}p{p}") for p in range(prompts) for _ in range(group)]
    found += [Entry(0, num_steps, "eval", f"e{p}") for p in range(num_eval)]
    return [Entry(i, e.step, e.split, e.prompt) for i, e in enumerate(found)]


def test_few_rows_are_all_shown() -> None:
    given = entries(10, 4, 8, 50)
    assert choose(given, len(given)) == given


def test_of_many_rows_each_step_has_whole_groups_and_evaluations_the_same_prompts() -> None:
    given = entries(120, 32, 8, 600)
    chosen = choose(given, 4000)
    assert len(chosen) <= 4000 and chosen == sorted(chosen, key=lambda entry: entry.offset)
    train = [entry for entry in chosen if entry.split == "train"]
    assert {entry.step for entry in train} == set(range(1, 121))
    assert set(Counter((entry.step, entry.prompt) for entry in train).values()) == {8}
    held_out = {step: {e.prompt for e in chosen if e.split == "eval" and e.step == step} for step in (0, 120)}
    assert held_out[0] == held_out[120] and len(held_out[0]) == 600


def test_of_more_steps_than_there_is_room_for_some_are_shown() -> None:
    chosen = choose(entries(1000, 2, 8, 0), 800)
    steps = sorted({entry.step for entry in chosen})
    assert len(chosen) <= 800 and steps[0] == 1 and steps[-1] == 1000 and len(steps) == 100


def test_columns_say_of_each_answer_whether_it_is_right() -> None:
    rows = [sample(1, p, k=k) for p in range(3) for k in range(2)]
    rows[0]["scores"] = {"outcome": {"error": "no answer"}}
    table = table_of(rows, 60, "outcome", None)
    columns = table.columns
    assert columns["right"][0] is None
    for row, right in list(zip(rows, columns["right"], strict=True))[1:]:
        assert right == (row["scores"]["outcome"]["value"] == 1)
    assert [columns["prompts"][i]["id"] for i in columns["prompt"]] == [row["prompt"] for row in rows]
    assert len(columns["prompts"]) == 3 and columns["num_all"] == 60 and "details" not in columns
