# shellcheck shell=bash
# Sourced by openrlhf.sh and verl.sh: the workload's files, and completions of its lengths in the peer's vLLM.
#
# WORKLOAD   text-forced or text-ragged
# MODEL      checkpoint folder or hub id, the same for all peers
# GPUS       of this machine
# STEPS      the first two are not counted
# RLCORE     a Python that has this project, for files and figures; the peer's own is `python` on PATH

set -euo pipefail

WORKLOAD=${WORKLOAD:-text-forced}
MODEL=${MODEL:-Qwen/Qwen2.5-0.5B-Instruct}
GPUS=${GPUS:-1}
STEPS=${STEPS:-12}
RLCORE=${RLCORE:?set RLCORE to a Python that has this project}

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

(cd "$ROOT" && "$RLCORE" -m benchmarks.peers.gpu prepare "$WORKLOAD" "$WORK")

# vLLM loads logits processors that are installed under this entry point, whoever builds the engine.
mkdir "$WORK/plugin"
cp "$ROOT/rlcore/engines/forced_lengths.py" "$WORK/plugin/bench_forced_lengths.py"
cat > "$WORK/plugin/pyproject.toml" <<'TOML'
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "bench-forced-lengths"
version = "1"
[project.entry-points."vllm.logits_processors"]
forced_lengths = "bench_forced_lengths:ForcedLengths"
[tool.setuptools]
py-modules = ["bench_forced_lengths"]
TOML
python -m pip install --quiet --force-reinstall "$WORK/plugin"
trap 'rm -rf "$WORK"; python -m pip uninstall --quiet --yes bench-forced-lengths' EXIT

export FORCED_LENGTHS="$WORK/lengths.json"
export BENCH_MARKS="$WORK/marks.txt"
export MAX_TOKENS
MAX_TOKENS=$("$RLCORE" -c 'import json, sys; print(max(json.load(open(sys.argv[1]))))' "$FORCED_LENGTHS")

report() {
  echo -n "$1, $WORKLOAD, $GPUS GPUs: "
  (cd "$ROOT" && "$RLCORE" -m benchmarks.peers.gpu report "$BENCH_MARKS")
}
