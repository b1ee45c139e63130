"""`rlcore bench` on the real stack: lengths as forced, log-probabilities of the model's own, results that the
comparison reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlcore import cli
from rlcore.bench import measure, suite
from rlcore.bench.workloads import WORKLOADS, Workload
from rlcore.config import RunConfig
from rlcore.engines.sampling import sampling_seed
from rlcore.loop.controller import Controller, StepResult

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(300)]
QUICK = "train: {staleness: 1}\nrollout: {num_cpus: 0.9}\nlearner: {num_cpus: 0.9}\ncluster: {num_cpus: 2}\n"
LENGTHS = (3, 9, 17, 5, 30, 12, 8)


def test_the_command_does_the_workload_and_writes_what_compare_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(WORKLOADS, "short", Workload(name="short", has_audio=True, lengths=LENGTHS))
    results, runs = list[StepResult](), list[tuple[RunConfig, measure.Measured]]()
    train_step = Controller.train_step

    def keeping_results(self: Controller) -> StepResult:
        results.append(train_step(self))
        return results[-1]

    def keeping_runs(config: RunConfig, *, num_steps: int) -> measure.Measured:
        runs.append((config, measure.measure(config, num_steps=num_steps)))
        return runs[-1][1]

    monkeypatch.setattr(Controller, "train_step", keeping_results)
    monkeypatch.setattr(suite, "measure", keeping_runs)
    settings, out = tmp_path / "ahead.yaml", tmp_path / "out.json"
    settings.write_text(QUICK)
    words = ["bench", "--workload", "short", "--config", str(settings), "--steps", "2"]
    assert cli.main([*words, "--json", str(out)]) == 0

    # Each sample has the length of its seed.
    ((config, measured),) = runs
    for step, result in enumerate(results):
        for place, group in enumerate(result.groups, start=step * len(result.groups)):
            seed = sampling_seed(config.seed, place, group.prompt.id)
            expected = [LENGTHS[(seed + k) % len(LENGTHS)] for k in range(8)]
            assert [len(completion.token_ids) for completion in group.completions] == expected
            assert {completion.finish_reason for completion in group.completions} <= {"stop", "length"}
            assert all(1 not in completion.token_ids[:-1] for completion in group.completions)
    # The forced stop has the model's own log-probability, in the engine and in the learner.
    differences = [result.metrics.get("logprob_max_diff", 0.0) for result in results]
    assert differences[0] > 0 and max(differences) < 1e-4

    counted = [[c for group in result.groups for c in group.completions] for result in results[2:4]]
    assert len(results) == 5 and len(measured.lengths) == 2
    assert measured.lengths == tuple(tuple(len(c.token_ids) for c in step) for step in counted)
    assert measured.prompt_tokens == 128 + 2 + 100  # words, the audio's ends, 4 s of audio
    assert set(measured.busy_seconds) == {"rollout", "update", "weight_sync"}
    # Of one round's length, as rounds run one after another, though none need end within the counted steps.
    seconds = sum(measured.step_seconds)
    assert 0.1 * seconds < 2 * measured.busy_seconds["rollout"] <= seconds
    assert measured.busy_seconds["update"] <= measured.phases["update"] * 1.01 + 0.05
    assert all(measured.peak_mb[name] > 100 for name in ("controller", "RolloutWorker", "LearnerWorker"))

    shown = capsys.readouterr().out
    assert "short: " in shown and "GFLOP/s" in shown
    written = json.loads(out.read_text())
    (row,) = written["workloads"]
    mean_length = sum(map(sum, measured.lengths)) / (2 * 16 * 8)
    assert row["tokens_per_second"] == pytest.approx(mean_length * row["samples_per_second"])
    assert len(row["steps"]) == 2 and [one["phase"] for one in row["roofline"]] == [
        "rollout",
        "update",
        "weight_sync",
    ]
    assert all(0 < one["share"] < 1 for one in row["roofline"])
    assert written["versions"]["vllm"] and written["num_cpus"] and written["config"] == [QUICK]
    assert cli.main(["bench", "compare", str(out), str(out)]) == 0
