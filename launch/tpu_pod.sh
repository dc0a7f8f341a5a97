#!/usr/bin/env bash
# Trains on a Cloud TPU slice, from creation to the last step, through preemptions.
#
#   launch/tpu_pod.sh up     create the slice unless it exists, wait until it is ready,
#                            copy this tree to every worker and install it
#   launch/tpu_pod.sh train -- --config=configs/quickstart.py --workdir=/mnt/runs/a
#                            start training on all workers, in the background there
#   launch/tpu_pod.sh tail   follow worker 0
#   launch/tpu_pod.sh stop   SIGTERM to training on all workers: it saves and ends
#   launch/tpu_pod.sh status state of the slice, and whether training runs on it
#   launch/tpu_pod.sh down   delete the slice
#   launch/tpu_pod.sh run -- FLAGS
#                            up and train; after a preemption or a crash delete,
#                            create and train again, until training ends with success
#
# Settings come from the environment:
#   TPU_NAME, TPU_ZONE       required
#   TPU_TYPE                 v5litepod-16 by default
#   TPU_VERSION              software version; v2-alpha-tpuv5-lite by default
#   TPU_PROJECT              gcloud's own by default
#   TPU_SPOT                 1 (default): may be preempted; 0: not
#   TPU_POLL_S               seconds between looks at the slice in `run`; 60
#   TPU_RETRIES              restarts of `run`; 100
#   DRY_RUN                  1: print the commands instead of running them
# The working folder must be one that all workers share; see docs/tpu.md.
set -euo pipefail

usage() {
  sed -n '2,/^set /p' "$0" | sed '$d' | sed 's/^# \{0,1\}//'
}

fail() {
  echo "error: $*" >&2
  exit 2
}

# Prints what it runs where DRY_RUN is set.
call() {
  if [[ "${DRY_RUN:-0}" == 1 ]]; then
    printf '+'
    printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}

tpu() {
  call gcloud compute tpus tpu-vm "$@" --zone="$TPU_ZONE" ${TPU_PROJECT:+--project="$TPU_PROJECT"}
}

# Runs a command on workers: on_workers 0|all COMMAND
on_workers() {
  tpu ssh "$TPU_NAME" --worker="$1" --command="$2"
}

# READY, PREEMPTED, CREATING, ..., or ABSENT.
state() {
  if [[ "${DRY_RUN:-0}" == 1 ]]; then
    echo ABSENT
    return
  fi
  tpu describe "$TPU_NAME" --format='value(state)' 2>/dev/null || echo ABSENT
}

create() {
  local spot=()
  [[ "${TPU_SPOT:-1}" == 1 ]] && spot=(--spot)
  tpu create "$TPU_NAME" --accelerator-type="${TPU_TYPE:-v5litepod-16}" \
    --version="${TPU_VERSION:-v2-alpha-tpuv5-lite}" "${spot[@]}"
}

down() {
  tpu delete "$TPU_NAME" --quiet
}

up() {
  case "$(state)" in
    READY) ;;
    ABSENT) create ;;
    CREATING | STARTING | REPAIRING) wait_until_ready ;;
    *)
      down
      create
      ;;
  esac
  install
}

wait_until_ready() {
  until [[ "$(state)" == READY ]]; do
    sleep "${TPU_POLL_S:-60}"
  done
}

install() {
  local root archive
  root="$(cd "$(dirname "$0")/.." && pwd)"
  archive="$(mktemp -d)/vla_jax.tar.gz"
  call tar -C "$root" --exclude=./.venv --exclude=./runs --exclude=./.git -czf "$archive" .
  tpu scp "$archive" "$TPU_NAME:vla_jax.tar.gz" --worker=all
  call rm -rf "$(dirname "$archive")"
  # Extraction replaces the tree, so that a file deleted here is not left there.
  on_workers all "rm -rf vla_jax && mkdir vla_jax && tar -C vla_jax -xzf vla_jax.tar.gz \
&& cd vla_jax && python3 -m venv ../venv \
&& ../venv/bin/pip install -q -U 'jax[tpu]' -e '.[remote]'"
}

# A shell on each worker waits for training and leaves its exit code in a file.
train() {
  local flags inner
  (($#)) || fail "train needs flags of launch/train.py after --"
  printf -v flags ' %q' "$@"
  printf -v inner '%q' "../venv/bin/python launch/train.py --distributed=on$flags & \
echo \$! > ../train.pid; wait \$!; echo \$? > ../train.exit"
  on_workers all "cd vla_jax && rm -f ../train.exit && \
(nohup bash -c $inner > ../train.log 2>&1 < /dev/null &)"
}

follow() {
  on_workers 0 "tail -n 100 -F train.log"
}

stop() {
  on_workers all 'kill -TERM "$(cat train.pid)" || true'
}

# Exit codes that workers left, one line each; "-" where training runs, nothing where
# the slice does not answer.
exits() {
  on_workers all "cat train.exit 2>/dev/null || echo -" 2>/dev/null || true
}

run() {
  local attempt codes now
  for ((attempt = 0; attempt <= ${TPU_RETRIES:-100}; attempt++)); do
    ((attempt == 0)) || echo "starting again, attempt $attempt" >&2
    if ! up || ! train "$@"; then
      down || true
      continue
    fi
    [[ "${DRY_RUN:-0}" == 1 ]] && return
    while now="$(state)" && [[ "$now" == READY ]]; do
      sleep "${TPU_POLL_S:-60}"
      codes="$(exits)"
      if [[ -n "$codes" ]] && ! grep -qv '^0$' <<<"$codes"; then
        echo "training has ended" >&2
        return
      fi
      # One process that failed has ended the others, or will.
      if grep -qE '^[1-9]' <<<"$codes"; then
        stop
        break
      fi
    done
    if [[ "$now" != READY ]]; then
      echo "the slice is $now" >&2
      down || true
    fi
  done
  fail "training did not end in $attempt attempts"
}

command="${1:-help}"
[[ $# -gt 0 ]] && shift
[[ "${1:-}" == -- ]] && shift
if [[ "$command" == help || "$command" == --help ]]; then
  usage
  exit 0
fi
: "${TPU_NAME:?set TPU_NAME to the name of the slice}"
: "${TPU_ZONE:?set TPU_ZONE, such as us-west4-a}"
case "$command" in
  up | train | stop | down | run) "$command" "$@" ;;
  tail) follow ;;
  status)
    echo "slice: $(state)"
    echo "exit codes of workers ('-': running):"
    exits
    ;;
  *) fail "unknown command '$command'; choose up, train, tail, stop, status, down or run" ;;
esac
