"""`rlcore bench` on the real stack: lengths as forced, log-probabilities of the model's own, results that the
comparison reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlcore import cli
from rlcore.bench.measure import measure
from rlcore.bench.workloads import Workload
from rlcore.config import ClusterConfig

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
QUICK = "train: {staleness: 1}\nrollout: {num_cpus: 0.9}\nlearner: {num_cpus: 0.9}\ncluster: {num_cpus: 2}\n"


def test_each_sample_has_the_length_of_its_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlcore.actors.session import ray_session
    from rlcore.controller import Controller
    from rlcore.engines.sampling import sampling_seed

    results = []
    train_step = Controller.train_step

    def keeping(self: Controller) -> object:
        results.append(train_step(self))
        return results[-1]

    monkeypatch.setattr(Controller, "train_step", keeping)
    table = (3, 9, 17, 5, 30, 12, 8)
    workload = Workload(name="short", has_audio=True, lengths=table)
    config = workload.config(tmp_path)
    with ray_session(ClusterConfig(num_cpus=3)):
        measured = measure(config, num_steps=1)
    for step, result in enumerate(results):
        for place, group in enumerate(result.groups, start=step * len(result.groups)):
            seed = sampling_seed(config.seed, place, group.prompt.id)
            expected = [table[(seed + k) % len(table)] for k in range(8)]
            assert [len(completion.token_ids) for completion in group.completions] == expected
            assert {completion.finish_reason for completion in group.completions} <= {"stop", "length"}
            assert all(1 not in completion.token_ids[:-1] for completion in group.completions)
        # The forced stop has the model's own log-probability, in the engine and in the learner.
        assert result.metrics["logprob_max_diff"] < 1e-4
    assert len(results) == 3 and len(measured.lengths) == 1
    assert sorted(measured.lengths[0]) == sorted(
        len(completion.token_ids) for group in results[-1].groups for completion in group.completions
    )
    assert measured.prompt_tokens == 128 + 2 + 100  # words, the audio's ends, 4 s of audio
    assert set(measured.busy_seconds) == {"rollout", "update", "weight_sync"}
    assert measured.busy_seconds["update"] <= measured.phases["update"] * 1.01 + 0.05
    assert all(measured.peak_mb[name] > 100 for name in ("controller", "RolloutWorker", "LearnerWorker"))


def test_the_command_writes_what_compare_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings, out = tmp_path / "ahead.yaml", tmp_path / "out.json"
    settings.write_text(QUICK)
    words = ["bench", "--workload", "text-forced", "--config", str(settings), "--steps", "2"]
    assert cli.main([*words, "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "text-forced: " in shown and "GFLOP/s" in shown
    result = json.loads(out.read_text())
    (row,) = result["workloads"]
    assert row["tokens_per_second"] == pytest.approx(64 * row["samples_per_second"])
    assert len(row["steps"]) == 2 and [one["phase"] for one in row["roofline"]] == [
        "rollout",
        "update",
        "weight_sync",
    ]
    assert all(0 < one["share"] < 1 for one in row["roofline"])
    assert result["versions"]["vllm"] and result["num_cpus"] and result["config"] == [QUICK]
    assert cli.main(["bench", "compare", str(out), str(out)]) == 0
