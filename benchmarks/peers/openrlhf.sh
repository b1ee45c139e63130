#!/usr/bin/env bash
# OpenRLHF's GRPO on the workload of `rlcore bench`, on GPUs. NOT RUN YET: written without a GPU, after
# OpenRLHF's own examples (examples/scripts/train_grpo_ray_hybrid_engine.sh); options that a newer OpenRLHF has
# renamed are to be looked up there.
#
#   RLCORE=/envs/rlcore/bin/python WORKLOAD=text-ragged MODEL=... GPUS=1 benchmarks/peers/openrlhf.sh
#
# rlcore on the same GPUs: rlcore bench --workload text-ragged --config your_gpus.yaml, with model.path: MODEL.

# shellcheck source=benchmarks/peers/gpu.sh
source "$(dirname "${BASH_SOURCE[0]}")/gpu.sh"

# 16 prompts a step: as many prompts as STEPS take, over and over.
python -m openrlhf.cli.train_ppo_ray \
  --actor_num_nodes 1 --actor_num_gpus_per_node "$GPUS" \
  --ref_num_nodes 1 --ref_num_gpus_per_node "$GPUS" \
  --vllm_num_engines "$GPUS" --vllm_tensor_parallel_size 1 \
  --colocate_all_models \
  --vllm_gpu_memory_utilization 0.5 \
  --vllm_sync_backend nccl \
  --vllm_enable_sleep --deepspeed_enable_sleep \
  --advantage_estimator group_norm \
  --init_kl_coef 0 \
  --pretrain "$MODEL" \
  --remote_rm_url "$HERE/gpu_reward.py" \
  --prompt_data "$WORK/prompts.jsonl" --input_key prompt --label_key label \
  --max_samples $((16 * STEPS)) --num_episodes 1 --max_epochs 1 \
  --rollout_batch_size 16 --n_samples_per_prompt 8 --train_batch_size 128 \
  --micro_rollout_batch_size 16 --micro_train_batch_size 16 \
  --prompt_max_len 1024 --generate_max_len "$MAX_TOKENS" \
  --zero_stage 2 --bf16 --packing_samples \
  --actor_learning_rate 1e-6 \
  --save_path "$WORK/model" --ckpt_path "$WORK/checkpoints" --save_steps -1 --logging_steps 1

report OpenRLHF
