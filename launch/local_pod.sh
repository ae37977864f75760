#!/usr/bin/env bash
# N processes of one training on this machine: a pod on loopback, with CPU collectives (gloo).
#   launch/local_pod.sh N COMMAND...
#   launch/local_pod.sh 4 python -m janus_jax.train_sft --config configs/shapes_sft.py --workdir runs/sft
# Each line of output begins with the process's number. Ctrl-C and SIGTERM reach all processes, which save and leave.
# Where one dies, a line says which and how, the others are ended, and so is this, with the dead one's status (128 + the
# signal's number). Each process has the devices that XLA_FLAGS give it: one, or
# XLA_FLAGS=--xla_force_host_platform_device_count=2. JAX_PLATFORMS=cpu is the default.
set -euo pipefail

MOST=256 # processes: each takes a Python of its own
GRACE=10 # seconds that the others have after a death: they can save nothing without it

say() { printf 'local_pod.sh: %s\n' "$*" >&2; }
refuse() {
  say "$*"
  exit 2
}

# Two ports side by side where nobody listens: jax's coordinator, and the roll call before it.
is_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 10000))
    if ! is_taken "$port" && ! is_taken "$((port + 1))"; then break; fi
  done
  printf '%s' "$port"
}

how() { # STATUS
  if (($1 > 128)); then
    printf 'was killed by signal %d (%s)' "$(($1 - 128))" "$(kill -l "$(($1 - 128))")"
  else
    printf 'ended with status %d' "$1"
  fi
}

count="${1:-}"
[[ "$count" =~ ^[1-9][0-9]*$ ]] || refuse "how many processes? launch/local_pod.sh N COMMAND..."
((${#count} <= 3 && count <= MOST)) || refuse "$count processes on one machine? launch/local_pod.sh N COMMAND..., N up to $MOST"
shift
(($# > 0)) || refuse "which command? launch/local_pod.sh N COMMAND..."
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 501)) || refuse "this needs bash 5.1 or later"

export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}" JAX_NUM_PROCESSES="$count" PYTHONUNBUFFERED=1
JAX_COORDINATOR_ADDRESS="127.0.0.1:$(free_port)"
JANUS_POD_TOKEN="$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')" # strangers at these ports do not know it
export JAX_COORDINATOR_ADDRESS JANUS_POD_TOKEN

declare -A number=() # of the processes that are left, by process group
prefixers=()
send() { # SIGNAL, to what is left
  local group
  for group in "${!number[@]}"; do kill "-$1" -- "-$group" || true; done
}
trap 'send TERM' TERM INT

# Bash has lines of its own about jobs that were killed, which name no process: ours do.
exec 3>&2 2>/dev/null
say() { printf 'local_pod.sh: %s\n' "$*" >&3; }

set -m # a process group each: a signal from the terminal reaches them once, through us
for ((index = 0; index < count; index++)); do
  # a progress bar's returns become lines, or it would be seen at its end only
  exec {out}> >(trap '' TERM INT && stdbuf -oL tr '\r' '\n' | sed -u "/^$/d; s/^/[$index] /")
  prefixers+=("$!")
  JAX_PROCESS_ID="$index" "$@" >&"$out" 2>&1 3>&- &
  number[$!]="$index"
  exec {out}>&-
done

result=0 reaper=""
declare -A ended=() # statuses of those that have died and are not yet spoken of
while ((${#number[@]})); do
  # Looked for, not waited for: `wait -n` does not know one that was gone before it was called.
  for group in "${!number[@]}"; do
    if [[ -z "${ended[$group]:-}" ]] && ! kill -0 "$group"; then
      ended[$group]=0
      wait "$group" || ended[$group]=$?
    fi
  done
  # Of several, one that was killed comes first: the others only lost their connection to it.
  gone="" status=-1
  for group in "${!ended[@]}"; do
    if ((ended[$group] > status)); then gone="$group" status="${ended[$group]}"; fi
  done
  if [[ -z "$gone" ]]; then
    sleep 0.2 &
    wait "$!" || true # a signal to us ends this at once
    continue
  fi
  index="${number[$gone]}"
  unset "number[$gone]" "ended[$gone]"
  kill -KILL -- "-$gone" || true # what it left behind
  if ((status && !result)); then
    result="$status"
    say "process $index of $count $(how "$status"); ending the other ${#number[@]}"
    send TERM
    (
      sleep "$GRACE"
      send KILL
    ) &
    reaper="$!"
  fi
done
if [[ -n "$reaper" ]]; then
  kill -KILL -- "-$reaper" || true
fi
wait "${prefixers[@]}" || true # their last lines
exit "$result"
