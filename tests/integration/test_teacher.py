"""On-policy distillation for real: a teacher on vLLM tells a policy that hears how likely its own tokens
are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_models import make_qwen2_audio, tone

from rlcore.config import load_config
from rlcore.models.hf_model import load_model, load_processor, save_checkpoint
from rlcore.records.tracking import read_metrics
from rlcore.run import train

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]
CONFIG = """\
run_dir: runs/student
model: {path: student}
task:
  target: "rlcore.tasks:Rows"
  args: {train: asked.jsonl, model_path: "${model.path}"}
rollout: {num_cpus: 0.5, samples_per_prompt: 4, max_tokens: 12, engine: {max_model_len: 128}}
rewards:
  teacher:
    target: "rlcore.rewards.teacher:Teacher"
    num_cpus: 0.3
    args:
      model_path: teacher
      policy_path: ${model.path}
      task: ${task.target}
      task_args: ${task.args}
      engine: {max_model_len: 128, kv_cache_memory_bytes: 33554432}
algorithm: {kl_coef: 0}
learner: {num_cpus: 0.5, lr: 3.0e-3}
train: {num_steps: 12, prompts_per_step: 4}
cluster: {num_cpus: 2}
"""


def test_a_policy_follows_its_teacher_token_by_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_qwen2_audio(tmp_path / "student")
    sharp, processor = load_model("student"), load_processor("student")
    sharp.lm_head.weight.data = 8 * sharp.lm_head.weight.data.roll(3, 0)
    save_checkpoint(sharp, tmp_path / "teacher", processor=processor)
    rows = []
    for i in range(12):
        soundfile.write(f"{i}.wav", tone(i), 16000)
        rows.append(json.dumps({"audio": f"{i}.wav", "prompt": "what is the emotion?"}))
    (tmp_path / "asked.jsonl").write_text("\n".join(rows))
    (tmp_path / "student.yaml").write_text(CONFIG)

    summary = train(load_config(["student.yaml"]))
    steps = [row for row in read_metrics("runs/student") if "reward/teacher" in row]
    told = [row["reward/teacher"] for row in steps]
    assert len(told) == 12 and np.mean(told[-3:]) > np.mean(told[:3]) + 3
    assert summary["after"]["score"] > summary["before"]["score"] + 3  # on recordings that it never heard
    assert all(row["groups_without_signal"] == 0 and row["reward/mean"] == 0 for row in steps)
