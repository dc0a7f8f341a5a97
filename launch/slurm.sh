#!/usr/bin/env bash
# Trains on GPUs under SLURM, one process per node, and goes on after a time limit.
#
#   sbatch --nodes=4 --gpus-per-node=8 launch/slurm.sh --config=CONFIG --workdir=DIR
#
# The working folder must be one that all nodes share. A while before the time limit, and
# when the job is preempted, SLURM sends SIGTERM: training saves and ends, and the job
# queues itself again. A process that fails takes the step down at once.
# PYTHON names the interpreter, .venv/bin/python by default. DRY_RUN=1 prints the command.
#SBATCH --job-name=vla_jax
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=vla_jax-%j.log
set -euo pipefail

if (($# == 0)); then
  echo "error: give the flags of launch/train.py" >&2
  exit 2
fi
# SLURM runs a copy of this script from its own spool folder.
cd "${SLURM_SUBMIT_DIR:-$(cd "$(dirname "$0")/.." && pwd)}"

command=(
  srun --kill-on-bad-exit=1 --ntasks-per-node=1
  "${PYTHON:-.venv/bin/python}" launch/train.py --distributed=auto "$@"
)
if [[ "${DRY_RUN:-0}" == 1 ]]; then
  printf '+'
  printf ' %q' "${command[@]}"
  printf '\n'
  exit 0
fi

stopped=0
"${command[@]}" &
step=$!
# srun passes SIGTERM on to every task; each of them saves the same step.
trap 'stopped=1; kill -TERM "$step"' TERM
code=0
while :; do
  wait "$step" && code=0 || code=$?
  # A signal ends `wait`, but not the step.
  kill -0 "$step" 2>/dev/null || break
done
if ((stopped)) && ((code == 0 || code == 143)) && [[ -n "${SLURM_JOB_ID:-}" ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
