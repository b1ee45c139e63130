#!/usr/bin/env bash
# verl's GRPO on the workload of `rlcore bench`, on GPUs. NOT RUN YET: written without a GPU, after verl's own
# examples (examples/grpo_trainer); settings that a newer verl has renamed are to be looked up there.
#
#   RLCORE=/envs/rlcore/bin/python WORKLOAD=text-ragged MODEL=... GPUS=1 benchmarks/peers/verl.sh
#
# rlcore on the same GPUs: rlcore bench --workload text-ragged --config your_gpus.yaml, with model.path: MODEL.

# shellcheck source=benchmarks/peers/gpu.sh
source "$(dirname "${BASH_SOURCE[0]}")/gpu.sh"

python -m verl.trainer.main_ppo \
  algorithm.adv_estimator=grpo \
  algorithm.use_kl_in_reward=False \
  data.train_files="$WORK/prompts.parquet" \
  data.val_files="$WORK/prompts.parquet" \
  data.train_batch_size=16 \
  data.max_prompt_length=1024 \
  data.max_response_length="$MAX_TOKENS" \
  data.shuffle=False \
  actor_rollout_ref.model.path="$MODEL" \
  actor_rollout_ref.model.use_remove_padding=True \
  actor_rollout_ref.model.enable_gradient_checkpointing=False \
  actor_rollout_ref.actor.optim.lr=1e-6 \
  actor_rollout_ref.actor.ppo_mini_batch_size=16 \
  actor_rollout_ref.actor.use_dynamic_bsz=True \
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384 \
  actor_rollout_ref.actor.use_kl_loss=False \
  actor_rollout_ref.actor.entropy_coeff=0 \
  actor_rollout_ref.rollout.name=vllm \
  actor_rollout_ref.rollout.n=8 \
  actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
  actor_rollout_ref.rollout.gpu_memory_utilization=0.5 \
  actor_rollout_ref.rollout.log_prob_use_dynamic_bsz=True \
  actor_rollout_ref.rollout.log_prob_max_token_len_per_gpu=16384 \
  custom_reward_function.path="$HERE/gpu_reward.py" \
  custom_reward_function.name=compute_score \
  trainer.n_gpus_per_node="$GPUS" \
  trainer.nnodes=1 \
  trainer.logger='["console"]' \
  trainer.val_before_train=False \
  trainer.test_freq=-1 \
  trainer.save_freq=-1 \
  trainer.total_epochs=100 \
  trainer.total_training_steps="$STEPS"

report verl
