"""What lies beside the weights is saved as it was loaded; what cannot be is told before a step is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_models import make_text

from rlcore.errors import CheckpointError, ConfigError, DataError
from rlcore.models.export_check import prepare_export
from rlcore.models.hf_model import load_model, load_processor, save_checkpoint


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_text(tmp_path / "base")


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def prepare(path: Path, folder: Path, num_bytes: int = 0) -> dict[str, bytes]:
    return prepare_export(load_model(str(path)), str(path), folder, num_bytes=num_bytes)


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.6},
        {"do_sample": False, "temperature": 0.6, "top_p": 0.9, "top_k": 20},
        {"do_sample": True, "temperature": 0.0},
        {"num_beams": 1, "early_stopping": True},
        {"pad_token_id": -1},
        {"output_scores": True},
        {"of_another_library": {"a": 1}},
    ],
)
def test_generation_settings_are_saved_as_their_author_wrote_them(
    path: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    """Transformers loads all of them, and would refuse to save most."""
    file = path / "generation_config.json"
    change(file, **settings)
    model = load_model(str(path))
    save_checkpoint(model, tmp_path / "saved", processor=load_processor(str(path)))
    assert (tmp_path / "saved" / file.name).read_bytes() == file.read_bytes()
    assert prepare(path, tmp_path / "model")[file.name] == file.read_bytes()
    assert load_model(str(tmp_path / "saved")).generation_config == model.generation_config
    # Who changes them after loading has them saved as changed.
    model.generation_config.temperature = 0.25
    save_checkpoint(model, tmp_path / "changed")
    assert json.loads((tmp_path / "changed" / file.name).read_text())["temperature"] == 0.25
    file.unlink()
    save_checkpoint(load_model(str(path)), tmp_path / "derived")
    assert (tmp_path / "derived" / file.name).is_file()


def test_generation_settings_that_cannot_be_loaded_are_the_checkpoints_fault(path: Path) -> None:
    change(path / "generation_config.json", max_new_tokens=0)
    with pytest.raises(DataError, match=rf"^{path}: transformers cannot load it: .*`max_new_tokens` must be"):
        load_model(str(path))


@pytest.mark.parametrize("settings", [{"temperature": 0.6, "do_sample": True}, {"max_length": 77}])
def test_generation_settings_in_the_models_configuration_are_saved(
    path: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    change(path / "config.json", **settings)
    assert prepare(path, tmp_path / "model")
    save_checkpoint(load_model(str(path)), tmp_path / "saved", processor=load_processor(str(path)))
    load_model(str(tmp_path / "saved"))


def test_a_chat_template_that_cannot_be_saved_is_told_at_once(path: Path, tmp_path: Path) -> None:
    (path / "chat_template.jinja").unlink()
    outside = [{"name": "default", "template": "{{ messages }}"}, {"name": "../x", "template": "a"}]
    change(path / "tokenizer_config.json", chat_template=outside)
    with pytest.raises(ConfigError) as refused:
        prepare(path, tmp_path / "model")
    assert f"model.path: {path} can be loaded and not saved: " in str(refused.value)
    assert "Invalid chat template name: '../x'" in str(refused.value)
    assert not list(tmp_path.glob("*model*")) and not list(tmp_path.glob(".export*"))
    change(path / "tokenizer_config.json", chat_template=outside[:1])
    assert prepare(path, tmp_path / "model")["chat_template.jinja"] == b"{{ messages }}"


def test_a_place_that_cannot_take_the_model_is_told_at_once(path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "model"):
        with pytest.raises(CheckpointError, match=rf"^{folder}: the trained model cannot be written there: "):
            prepare(path, folder)
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(CheckpointError, match=r"MB are free there, the trained .* take 1,152,921,504,607 MB"):
        prepare(path, tmp_path / "model", num_bytes=1 << 60)
    assert prepare(path, tmp_path / "model").keys() >= {"config.json", "tokenizer.json"}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["base", "file"]
