#!/usr/bin/env bash
# A Google Cloud of one TPU VM for tests/test_launch.py, which puts it on the PATH as `gcloud`. State, in $STUB:
#   vm, qr          the state of the TPU VM and of the queued resource; no file, no such thing
#   w0, w1, ...     the homes of the workers: ssh runs the remote command there, scp copies into them
#   hosts, down     how many workers a new VM has; the numbers of those that do not answer
#   events/KIND     a line for each coming call of that kind: what happens then, nothing if it is empty. Fields, with
#                   tabs between: vm=STATE, qr=STATE, touch=FILE, preempt, shutdown (SIGTERM to all), stderr=TEXT,
#                   status=N; with a status the call ends there. A KIND is auth, create, delete, describe-vm, describe-qr, scp, ssh, or
#                   ssh-ACTION of tpu_worker.sh
#   calls           every call, a line each
# In bash, because a test makes dozens of calls. The messages are those of gcloud 528.0.0's source, or from bug reports.
set -euo pipefail

end() { # STATUS [MESSAGE]
  if [[ -n "${2:-}" ]]; then printf '%b\n' "$2" >&2; fi
  exit "$1"
}

broken() { end 99 "stub_gcloud.sh: $*"; } # tpu.sh has done what it never should

kill_jobs() { # SIGNAL
  local job
  for job in "$STUB"/w*/janus_jax_job; do
    if [[ -f "$job/group" ]]; then kill "-$1" -- "$(<"$job/pid")" "-$(<"$job/group")" 2>/dev/null || true; fi
  done
}

remove_vm() {
  kill_jobs KILL
  rm -rf -- "$STUB"/w[0-9]* "$STUB/vm"
}

preempt() {
  remove_vm
  if [[ -f "$STUB/qr" ]]; then printf SUSPENDED >"$STUB/qr"; else printf PREEMPTED >"$STUB/vm"; fi
}

play() { # KIND
  local file="$STUB/events/$1" line field fields status=""
  if [[ ! -s "$file" ]]; then return; fi
  line="$(head -n 1 "$file")"
  sed -i 1d "$file"
  IFS=$'\t' read -ra fields <<<"$line"
  for field in ${fields[@]+"${fields[@]}"}; do
    case "$field" in
      preempt) preempt ;;
      shutdown) kill_jobs TERM ;;
      vm=* | qr=*) printf '%s' "${field#*=}" >"$STUB/${field%%=*}" ;;
      touch=*) : >"${field#*=}" ;;
      stderr=*) printf '%b\n' "${field#*=}" >&2 ;;
      status=*) status="${field#*=}" ;;
      *) broken "unknown event $field" ;;
    esac
  done
  if [[ -n "$status" ]]; then exit "$status"; fi
}

need_vm() { # VERB
  local state=""
  if [[ -f "$STUB/vm" ]]; then state="$(<"$STUB/vm")"; fi
  case "$state" in
    "") end 1 "ERROR: (gcloud.compute.tpus.tpu-vm.$1) NOT_FOUND: Resource 'nodes/x' was not found" ;;
    PREEMPTED | TERMINATED)
      end 1 "ERROR: (gcloud.compute.tpus.tpu-vm.$1) This TPU has terminal state \"$state\", so it cannot be used anymore."
      ;;
  esac
}

value_of() { # --FLAG ARGS...
  local flag="$1" word
  shift
  for word in "$@"; do
    if [[ "$word" == "$flag="* ]]; then printf '%s' "${word#*=}" && return; fi
  done
}

# Calls ACTION HOME... for the chosen workers; the status is the first one that is not 0, as with gcloud.
on_each() { # PROGRAM WORKER ACTION...
  local program="$1" worker="$2" home number try status first=0 down=""
  shift 2
  if [[ -f "$STUB/down" ]]; then down=" $(<"$STUB/down") "; fi
  for home in "$STUB"/w[0-9]*; do
    number="${home##*/w}" status=0
    if [[ "$worker" != all && "$worker" != "$number" ]]; then continue; fi
    if [[ "$down" == *" $number "* ]]; then
      for ((try = 0; try < 10; try++)); do
        printf '%s: Attempting to connect to worker %s...\n' "$program" "$number" >&2
        printf 'Retrying: %s command error: [/usr/bin/ssh] exited with return code [255].\n' "$program" >&2
      done
      status=255
    else
      printf '%s: Attempting to connect to worker %s...\n' "$program" "$number" >&2
      "$@" "$home" || status=$?
      if ((status)); then
        printf '##### Command execution on worker %s failed with exit status %s. Continuing.\n' "$number" "$status" >&2
      fi
    fi
    if ((first == 0)); then first=$status; fi
  done
  exit "$first"
}

run_in() { (cd -- "$2" && HOME="$2" WORKER="host-${2##*/}" exec bash -c "$1" </dev/null); }
copy_to() { cp -- "${@:1:$#-1}" "${*: -1}"; }

printf '%s\n' "$*" >>"$STUB/calls"
if [[ "$1 $2" == "auth list" ]]; then
  play auth
  printf 'someone@example.com\n'
  exit
fi
[[ "$1 $2" == "compute tpus" ]] || broken "unknown command $*"
what="$3" verb="$4"
shift 4
case "$what" in tpu-vm) mine=vm ;; queued-resources) mine=qr ;; *) broken "unknown $what" ;; esac

case "$verb" in
  create)
    if [[ -f "$STUB/$mine" ]]; then broken "it is there already"; fi
    play create
    if [[ "$mine" == qr ]]; then printf ACTIVE >"$STUB/qr"; fi
    printf READY >"$STUB/vm"
    hosts=1
    if [[ -f "$STUB/hosts" ]]; then hosts="$(<"$STUB/hosts")"; fi
    for ((host = 0; host < hosts; host++)); do mkdir -p -- "$STUB/w$host"; done
    ;;
  describe)
    play "describe-$mine"
    [[ -f "$STUB/$mine" ]] || end 1 "ERROR: (gcloud.compute.tpus.$what.describe) NOT_FOUND: Resource was not found"
    if [[ "$*" == *failedData* ]]; then cat -- "$STUB/reason"; else printf '%s\n' "$(<"$STUB/$mine")"; fi
    ;;
  delete)
    play delete
    [[ -f "$STUB/$mine" ]] || broken "it is not there"
    if [[ "$mine" == vm && -f "$STUB/qr" ]]; then broken "the queued resource goes first"; fi
    if [[ "$mine" == qr && "$*" != *--force* ]]; then end 1 "ERROR: its nodes are still there"; fi
    remove_vm
    rm -f -- "$STUB/$mine"
    ;;
  scp)
    play scp
    need_vm scp
    sources=()
    for word in "$@"; do
      case "$word" in --*) ;; *:) ;; *) sources+=("$word") ;; esac
    done
    on_each SCP "$(value_of --worker "$@")" copy_to "${sources[@]}"
    ;;
  ssh)
    command="$(value_of --command "$@")"
    action="${command#bash tpu_worker.sh }"
    play ssh
    play "ssh-${action%% *}"
    need_vm ssh
    on_each SSH "$(value_of --worker "$@")" run_in "$command"
    ;;
  *) broken "unknown verb $verb" ;;
esac
