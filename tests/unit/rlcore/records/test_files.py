"""Files that are whole or absent, and JSON lines of which a kill costs no more than the last."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_files import no_file_beyond

from rlcore.errors import DataError, StorageError
from rlcore.records.files import (
    RowAppender,
    append_rows,
    keep_rows,
    last_row,
    make_closed,
    numbered_rows,
    read_json,
    read_rows,
    replaced,
    room,
    why,
    write_json,
    write_rows,
    write_text,
)

ROOT = Path(__file__).resolve().parents[4]

WRITE_AND_WAIT = """
import sys, time
from rlcore.records.files import replaced
with replaced(sys.argv[1], durable=True) as partial:
    partial.write_text("new, and only half")
    print("written", flush=True)
    time.sleep(60)
"""
APPEND_FOR_EVER = """
import sys
from rlcore.records.files import RowAppender
with RowAppender(sys.argv[1]) as file:
    number = 0
    while True:
        file.write({"number": number, "text": "\u00e4" * 5000})
        number += 1
        print(number, flush=True)
"""


def kill_in_the_middle(program: str, path: Path, num_lines: int) -> int:
    """Kills the program after it has printed so many lines, and returns the last whole line's number."""
    command = [sys.executable, "-c", program, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    printed = [process.stdout.readline().strip() for _ in range(num_lines)]
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().splitlines()
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    return int([*printed, *rest][-1]) if printed[-1].isdigit() else 0


def test_a_kill_before_the_rename_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_text(path, "old")
    kill_in_the_middle(WRITE_AND_WAIT, path, num_lines=1)
    assert path.read_text() == "old"
    assert (tmp_path / ".state.json.partial").read_text() == "new, and only half"
    write_text(path, "newest")
    assert path.read_text() == "newest" and os.listdir(tmp_path) == ["state.json"]


def test_a_killed_writer_of_lines_loses_the_last_at_most(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    num_told = kill_in_the_middle(APPEND_FOR_EVER, path, num_lines=20)
    numbers = [row["number"] for row in read_rows(path)]
    assert numbers == list(range(len(numbers))) and len(numbers) in (num_told, num_told + 1)
    append_rows(path, [{"number": -1}])
    assert [row["number"] for row in read_rows(path)] == [*numbers, -1]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    is_done = threading.Event()
    write_json(path, [0] * 20_000)

    def write() -> None:
        for number in range(1, 30):
            write_json(path, [number] * 20_000)
        is_done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = []
    while not is_done.is_set():
        values = json.loads(path.read_text())
        assert len(values) == 20_000 and len(set(values)) == 1
        seen.append(values[0])
    writer.join()
    assert seen == sorted(seen) and len(set(seen)) > 1


def test_a_folder_takes_the_place_of_a_folder_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for name in ("first", "second"):
        with replaced(folder) as partial:
            partial.mkdir()
            (partial / name).write_text(name)
    with pytest.raises(ZeroDivisionError), replaced(folder) as partial:
        partial.mkdir()
        (partial / "third").write_text(str(1 / 0))
    assert os.listdir(tmp_path) == ["model"] and os.listdir(folder) == ["second"]


def test_writers_of_one_path_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "entry"
    with replaced(path, is_shared=True) as one, replaced(path, is_shared=True) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one" and os.listdir(tmp_path) == ["entry"]


@pytest.mark.parametrize("cut", [b'{"a": ', '{"a": "\u00e4'.encode()[:-1], b'{"a": 2}'])
def test_a_line_cut_short_is_left_out_and_gone_before_the_next(tmp_path: Path, cut: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + cut)
    assert list(read_rows(path)) == [{"a": 1}]
    with RowAppender(path) as file:
        file.write({"a": 3})
        assert list(read_rows(path)) == [{"a": 1}, {"a": 3}]
    path.write_bytes(cut)
    append_rows(path, [{"a": 4}])
    assert path.read_bytes() == b'{"a": 4}\n'


def test_what_json_cannot_hold_is_null_and_half_a_surrogate_its_escape(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"\udc80": "bad \udcff byte", "x": [np.float32(0.5), float("nan")], "y": {"z": float("inf")}}
    append_rows(path, [row])
    assert path.read_bytes() == b'{"\\udc80": "bad \\udcff byte", "x": [0.5, null], "y": {"z": null}}\n'
    (read,) = read_rows(path)
    assert read == {"\udc80": "bad \udcff byte", "x": [0.5, None], "y": {"z": None}}
    write_json(tmp_path / "a.json", {"\udc80": [1]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"\udc80": [1]}
    with pytest.raises(TypeError, match="not JSON serializable"):
        append_rows(path, [{"path": path}])
    assert len(list(read_rows(path))) == 1


def test_rows_are_kept_or_dropped(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    keep_rows(path, lambda row: True)
    assert not path.exists() and list(read_rows(path)) == []
    assert write_rows(path, ({"step": step} for step in range(5))) == 5
    keep_rows(path, lambda row: row["step"] % 2 == 0)
    assert path.read_text() == '{"step": 0}\n{"step": 2}\n{"step": 4}\n'


def test_people_may_end_a_file_without_a_newline_and_start_it_with_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "theirs.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}')
    assert list(numbered_rows(path, "a row")) == [(1, {"a": 1}), (3, {"a": 2})]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"a": 1', "rows.jsonl:2: not a row: not JSON"),
        (b"[1, 2]", "rows.jsonl:2: not a row: '[1, 2]'"),
        (
            b'{"a": "\xe4"}',
            "rows.jsonl:2: not UTF-8 (invalid continuation byte, byte 0xe4); save it as UTF-8",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(DataError, match=re.escape(said)):
        list(numbered_rows(path, "a row"))


def test_json_that_is_nested_too_deeply_is_named(tmp_path: Path) -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    (tmp_path / "rows.jsonl").write_bytes(b'{"a": 1}\n{"a": ' + deep + b"}\n")
    with pytest.raises(DataError, match=r"rows\.jsonl:2: not a row: not JSON: maximum recursion depth"):
        list(numbered_rows(tmp_path / "rows.jsonl", "a row"))
    (tmp_path / "a.json").write_bytes(deep)
    with pytest.raises(DataError, match=r"a\.json: not JSON \(maximum recursion depth"):
        read_json(tmp_path / "a.json")


def test_a_file_never_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "model").write_text("precious")
    with pytest.raises(IsADirectoryError):
        write_rows(run, [{"a": 1}])
    assert [path.name for path in tmp_path.iterdir()] == ["run"] and (run / "model").read_text() == "precious"


def test_links_are_followed_and_special_files_written_to(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "heard")
    assert os.read(reader, 100) == b"heard" and pipe.is_fifo()
    os.close(reader)


def test_the_last_whole_row_is_found_without_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert last_row(path) is None
    append_rows(path, ({"step": step, "loss": float("nan")} for step in range(10_000)))
    with path.open("a") as file:
        file.write('{"step": 10000, "lo')
    assert last_row(path) == {"step": 9999, "loss": None}
    path.write_text('{"step": 0')
    assert last_row(path) is None


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"a": np.int64(3), "b": np.bool_(True), "c": np.float32("inf")}])
    assert list(read_rows(tmp_path / "rows.jsonl")) == [{"a": 3, "b": True, "c": None}]


def test_no_one_else_renames_files_or_writes_json_lines() -> None:
    """Left out is the wire: JSON messages, and shared memory that is named once it is locked."""
    by_hand = re.compile(
        r"os\.(replace|rename)\(|\.rename\(|temporary\.replace|with_suffix\([^)]*(tmp|part)|json\.dumps\(.*\\n"
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for package in ("rlcore", "emotion_task")
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.parent.name != "weight_sync" and path.name != "files.py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if by_hand.search(line)
    ]
    assert found == []


def test_a_new_folder_is_closed_and_an_old_one_stays_as_it_is(tmp_path: Path) -> None:
    new = make_closed(tmp_path / "runs" / "mine")
    assert stat.S_IMODE(new.stat().st_mode) == 0o700
    new.chmod(0o750)  # its user shares it
    assert stat.S_IMODE(make_closed(new).stat().st_mode) == 0o750


def test_a_json_file_that_is_broken_is_named(tmp_path: Path) -> None:
    assert read_json(tmp_path / "none.json") == {}
    write_json(tmp_path / "a.json", {"a": 1})
    assert read_json(tmp_path / "a.json") == {"a": 1}
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(DataError, match=r"a\.json: not JSON \(Expecting value.*; mend it, or delete it"):
        read_json(tmp_path / "a.json")


def test_on_a_full_disk_rows_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with RowAppender(path) as file:
        file.write({"a": 1})
        with pytest.raises(StorageError) as failed, no_file_beyond(path.stat().st_size + 12):
            file.write({"a": 2}, {"text": "x" * 200})
        assert path.read_text() == '{"a": 1}\n'
        file.write({"a": 3})
    assert list(read_rows(path)) == [{"a": 1}, {"a": 3}]
    assert str(failed.value) == f"{path}: a row cannot be written: File too large"
    with pytest.raises(StorageError, match=re.escape(f"{path}: a row cannot be written")), no_file_beyond(1):
        append_rows(path, [{"a": 4}])
    assert list(read_rows(path)) == [{"a": 1}, {"a": 3}]


@pytest.mark.parametrize("loss", ["deleted", "moved", "replaced"])
def test_rows_go_to_no_file_that_is_gone(tmp_path: Path, loss: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with RowAppender(folder / "rows.jsonl") as file:
        file.write({"a": 1})
        folder.rename(tmp_path / "elsewhere")
        if loss == "deleted":
            (tmp_path / "elsewhere" / "rows.jsonl").unlink()
        if loss == "replaced":
            folder.mkdir()
            (folder / "rows.jsonl").touch()
        with pytest.raises(StorageError, match=r"run/rows\.jsonl: a row cannot be .* deleted or moved"):
            file.write({"a": 2})


def test_on_a_full_disk_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, [1])
    for write in (lambda: write_json(path, [2] * 99), lambda: write_rows(path, [{"a": "x" * 99}])):
        said = rf"{path}: cannot be written: File too large"
        with pytest.raises(StorageError, match=said), no_file_beyond(50):
            write()
    assert json.loads(path.read_text()) == [1] and os.listdir(tmp_path) == ["a.json"]
    with pytest.raises(FileNotFoundError), replaced(path) as partial:  # is no matter of the disk
        partial.write_bytes((tmp_path / "none").read_bytes())


def test_what_is_missing_on_a_full_disk_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1_500_000))
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    said = "No space left on device; it takes at least 4.0 MB, 1.5 MB are free there, 2.5 MB are missing"
    assert why(full, tmp_path / "not" / "yet", 4_000_000) == said
    assert room(tmp_path, 812, held=500) == "it takes at least 812 bytes, 1.5 MB are free there"
    assert why(OSError(errno.EROFS, "Read-only file system"), tmp_path, 5) == "Read-only file system"
