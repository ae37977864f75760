#!/usr/bin/env bash
# A job on Cloud TPU VMs, from nothing to its end, on one host or many.
#
#   launch/tpu.sh create --name N --zone Z --type T   makes the VM and waits until it is there
#   launch/tpu.sh setup  --name N --zone Z            copies the commit HEAD to every host and installs it
#   launch/tpu.sh run    --name N --zone Z -- COMMAND starts COMMAND on every host, detached, and watches it
#   launch/tpu.sh logs   --name N --zone Z            the last lines of the log
#   launch/tpu.sh status --name N --zone Z            the VM's state and the job's on every host
#   launch/tpu.sh delete --name N --zone Z            deletes the VM (and its queued resource): ends the bill
#
# Examples. A training on 16 v5e chips (4 hosts) at the spot price, which goes on by itself after a preemption:
#   export TPU_NAME=janus ZONE=us-west4-a ACCELERATOR_TYPE=v5litepod-16
#   launch/tpu.sh create --spot --queued && launch/tpu.sh setup
#   launch/tpu.sh run --spot --queued --delete-on-finish -- \
#     python -m janus_jax.train_sft --config configs/NAME.py --workdir /mnt/BUCKET/sft
# One v6e chip; look at the commands first, then run them:
#   launch/tpu.sh create --name one --zone us-east5-b --type v6e-1 --dry-run
#
# Options (in brackets: the environment variable that sets it, too; a flag wins):
#   --name N --zone Z     of the VM [TPU_NAME, ZONE]
#   --project P           default: that of gcloud's configuration [PROJECT_ID]
#   --type T              v4-8, v5litepod-16, v5p-8, v6e-8, ... [ACCELERATOR_TYPE]; needed by create, and by run to
#                         make the VM again after a preemption. v4 and v5p count cores, two a chip; the others chips
#   --runtime R           software version; default by --type [RUNTIME_VERSION]
#   --spot | --reserved   cheap and preemptible | from your reservation; default: on demand
#   --queued              as a queued resource: waits in Google's queue for capacity instead of failing
#   --create-flag F       one more flag for gcloud's create, e.g. --create-flag=--service-account=A; may be repeated
#   --internal-ip         ssh to the internal addresses, for VMs without external ones
#   --retries R           run: how often to go on after an interruption, 5 [TPU_RETRIES]
#   --delete-on-finish    run: delete the VM when the command has ended, whatever its status
#   --detach              run: do not watch, hence do not retry either
#   --worker W --lines L --follow    logs: of which host (0; or all), how many (50), and go on
#   --tries N             for capacity, and for ssh, before giving up, 3 [TPU_TRIES]
#   --poll S              seconds between two looks or tries, 60 [TPU_POLL]; while a job runs 20 at most
#   --wait S              longest wait for the VM, 86400 [TPU_WAIT]
#   --dry-run             prints each command, quoted for the shell, and runs none
#
# What to know:
# - After a preemption `run` makes the VM again with the flags that it was given: repeat those of create.
# - `run` again with the same command takes up watching (Ctrl-C does not stop the job), or starts it again if it has
#   ended. Every training resumes from its --workdir by itself, which therefore must outlive the VM: /mnt/BUCKET/DIR
#   is on the bucket, which each host mounts (gcsfuse, installed where it is missing) unless something is mounted there.
# - The code travels as a `git archive` of HEAD by scp: works for private repositories, needs no remote and no key on
#   the VM, and every host gets the same commit, after a preemption too. Uncommitted changes stay at home.
# - On a VM that exists already, `setup` and `run` alone do. The job lives in ~/janus_jax_job there (tpu_worker.sh).
# - Exit status: 0 done; 1 Google Cloud or the command failed; 2 something to mend in the call. Never one without a line.
# - TPU7x has no TPU VM API: launch/jobset.yaml, on GKE.
# - Nobody has run this against Google Cloud yet: the flags were checked by gcloud's own parser (528.0.0, `gcloud meta
#   lint-gcloud-commands`), the words of its failures read in its source and in bug reports, the rest is tested on a stub.
set -euo pipefail
# shellcheck source=launch/setup.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/setup.sh"

# Google's pages for the commands below, under https://cloud.google.com/sdk/gcloud/reference/ :
#   auth/list                               compute/tpus/tpu-vm/{create,describe,delete,ssh,scp}
#   compute/tpus/queued-resources/{create,describe,delete}
# and the guides: https://cloud.google.com/tpu/docs/{managing-tpus-tpu-vm,queued-resources,spot,runtimes}

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; }

# ---------------------------------------------------------------------------------------------------- the call

name="${TPU_NAME:-}" zone="${ZONE:-}" project="${PROJECT_ID:-}" type="${ACCELERATOR_TYPE:-}" runtime="${RUNTIME_VERSION:-}"
retries="${TPU_RETRIES:-5}" tries="${TPU_TRIES:-3}" poll="${TPU_POLL:-60}" longest="${TPU_WAIT:-86400}"
price="" queued=0 dry=0 detach=0 delete_on_finish=0 worker=0 lines=50 follow=0
create_flags=() ssh_flags=() command=()

parse() {
  local flag value
  while (($#)); do
    flag="$1" value=""
    shift
    case "$flag" in
      --) command=("$@") && break ;;
      -h | --help) usage && exit ;;
      --spot | --reserved)
        if [[ -n "$price" && "$price" != "$flag" ]]; then refuse "--spot and --reserved exclude each other"; fi
        price="$flag"
        continue
        ;;
      --queued) queued=1 && continue ;;
      --internal-ip) ssh_flags=(--internal-ip) && continue ;;
      --delete-on-finish) delete_on_finish=1 && continue ;;
      --detach) detach=1 && continue ;;
      --follow) follow=1 && continue ;;
      --dry-run) dry=1 && continue ;;
      --*=*) value="${flag#*=}" flag="${flag%%=*}" ;;
      --*)
        if (($# == 0)); then refuse "$flag needs a value, or is unknown: launch/tpu.sh --help"; fi
        value="$1"
        shift
        ;;
      *) refuse "unexpected '$flag': options start with --, and the command to run stands after ' -- '" ;;
    esac
    case "$flag" in
      --name) name="$value" ;;
      --zone) zone="$value" ;;
      --project) project="$value" ;;
      --type) type="$value" ;;
      --runtime) runtime="$value" ;;
      --create-flag) create_flags+=("$value") ;;
      --retries) retries="$value" ;;
      --tries) tries="$value" ;;
      --poll) poll="$value" ;;
      --wait) longest="$value" ;;
      --worker) worker="$value" ;;
      --lines) lines="$value" ;;
      *) refuse "unknown option $flag: launch/tpu.sh --help" ;;
    esac
  done
}

is_number() { [[ "$1" =~ ^[0-9]+$ ]]; }

# What can be known to be wrong before Google is asked.
check() {
  [[ -n "$name" ]] || refuse "which VM? --name NAME (or export TPU_NAME=NAME)"
  [[ -n "$zone" ]] || refuse "in which zone? --zone ZONE, e.g. us-west4-a (or export ZONE=ZONE)"
  [[ "$name" =~ ^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$ ]] ||
    refuse "--name '$name': lower-case letters, digits and -, a letter first, 63 at most"
  [[ "$zone" =~ ^[a-z]+-[a-z]+[0-9]+-[a-z]$ ]] ||
    refuse "--zone '$zone' is no zone: a region and a letter, e.g. us-west4-a; https://cloud.google.com/tpu/docs/regions-zones"
  local pair
  for pair in "retries=$retries" "poll=$poll" "wait=$longest" "lines=$lines"; do
    is_number "${pair#*=}" || refuse "--${pair%%=*} '${pair#*=}': a whole number is needed"
  done
  [[ "$tries" =~ ^[1-9][0-9]*$ ]] || refuse "--tries '$tries': 1 or more is needed"
  [[ "$worker" == all ]] || is_number "$worker" || refuse "--worker '$worker': a number or all"
  if [[ -n "$type" ]]; then check_type; fi
}

# v4 and v5p come in hosts of four chips, and their names count cores, two a chip.
are_whole_hosts() { ((10#$1 > 0 && 10#$1 % 8 == 0)); }

# Names: https://cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}; runtimes: https://cloud.google.com/tpu/docs/runtimes
check_type() {
  local default=""
  case "$type" in
    tpu7x* | v7* | ironwood*) refuse "--type '$type': TPU7x can only be had through GKE: launch/jobset.yaml" ;;
    v5e-*) refuse "--type '$type': a v5e slice is called v5litepod-${type#v5e-}" ;;
  esac
  if [[ "$type" =~ ^v4-([1-9][0-9]*)$ ]] && are_whole_hosts "${BASH_REMATCH[1]}"; then
    default=tpu-ubuntu2204-base
  elif [[ "$type" =~ ^v5litepod-(1|4|8|16|32|64|128|256)$ ]]; then
    default=v2-alpha-tpuv5-lite
  elif [[ "$type" =~ ^v5p-([1-9][0-9]*)$ ]] && are_whole_hosts "${BASH_REMATCH[1]}"; then
    default=v2-alpha-tpuv5
  elif [[ "$type" =~ ^v6e-(1|4|8|16|32|64|128|256)$ ]]; then
    default=v2-alpha-tpuv6e
  fi
  if [[ -z "$default" ]]; then
    refuse "--type '$type' is unknown: v4-8, v5litepod-16, v5p-8, v6e-8 and the like; https://cloud.google.com/tpu/docs"
  fi
  runtime="${runtime:-$default}"
}

# ---------------------------------------------------------------------------------------------------- gcloud

ANSWER="" KIND="" WHY="" STATE="" OUTCOME="" # what the functions below hand back: $() would lose an exit
scratch="" creating=0 watching=0

fail() { # MESSAGE: one line, status 1; what gcloud said is kept
  local hint=""
  if [[ -s "$scratch/log" ]]; then
    hint="$(mktemp "${TMPDIR:-/tmp}/janus_tpu.XXXXXX")"
    mv -- "$scratch/log" "$hint"
    hint=" (gcloud's own words: $hint)"
  fi
  say "$*$hint"
  exit 1
}

leave() {
  local status=$?
  if ((status == 130 || status == 143)); then
    if ((creating)); then
      say "stopped while creating: $name may exist and cost money; to delete it: $(again delete)"
    elif ((watching)); then
      say "no longer watching; the job goes on: the same command watches again, $(again logs), $(again delete)"
    fi
  fi
  rm -rf -- "$scratch"
}

# ARGS quoted so that a shell reads them back; only what needs quotes gets them.
quote() {
  local word out="" safe='^[A-Za-z0-9_./:=@%+,-]+$' tick="'\\''"
  for word in "$@"; do
    if [[ ! "$word" =~ $safe ]]; then word="'${word//\'/$tick}'"; fi
    out+="${out:+ }$word"
  done
  printf '%s' "$out"
}

again() { # SUBCOMMAND: the call that does it to this VM
  printf '%s' "launch/tpu.sh $1 --name $name --zone $zone${project:+ --project $project}"
}

# One command of ours. A dry run prints it. Otherwise its standard output is in ANSWER, and in log with all it said.
do_it() {
  local status=0
  ANSWER=""
  if ((dry)); then
    quote "$@" >&3
    printf '\n' >&3
    return
  fi
  ANSWER="$("$@" 2>"$scratch/errors" 3>&- 4>&- </dev/null)" || status=$?
  {
    printf '$ %s\n' "$(quote "$@")"
    cat -- "$scratch/errors"
    printf '%s\n' "$ANSWER"
  } >>"$scratch/log"
  return "$status"
}

said() { grep -Eiq -- "$1" "$scratch/errors"; }

# gcloud has failed: KIND for us to decide by, WHY for people. Its messages are no interface, so an unknown one is shown.
understand() {
  if said 'property \[(core/)?project\]|property \[project\]'; then
    refuse "no project is set: --project PROJECT (or gcloud config set project PROJECT)"
  elif said 'active account selected|gcloud auth login|reauthentication'; then
    refuse "not logged in to Google Cloud, or no longer: gcloud auth login"
  elif said 'unrecognized arguments|invalid choice'; then
    refuse "gcloud does not know an option ($(last_error)): gcloud components update, or mend --create-flag"
  elif said 'quota'; then
    KIND=quota WHY="no quota for $type in $zone: ask for it (https://console.cloud.google.com/iam-admin/quotas) or try another --zone, --type or price"
  elif said 'no more capacity|insufficient [a-z ]*capacity|stockout|resource_pool_exhausted'; then
    KIND=capacity WHY="no capacity for $type in $zone: --queued waits for it, or try another --zone"
  elif said 'preempt'; then
    KIND=preempted WHY="$name was preempted"
  elif said 'permission|forbidden|has not been used in project|is disabled'; then
    KIND=denied WHY="Google Cloud does not permit it ($(last_error)): enable the Cloud TPU API and ask for the role TPU Admin"
  elif said 'not_found|not found|was not found'; then
    KIND=absent WHY="$name is not in $zone"
  else
    KIND=other WHY="gcloud failed: $(last_error)"
  fi
}

last_error() {
  local line
  line="$(grep -E '^ERROR' "$scratch/errors" | tail -n 1)" || line="$(tail -n 1 "$scratch/errors")"
  printf '%s' "${line:-it gave no reason}" | cut -c 1-300
}

need_gcloud() {
  if ((!dry)); then
    command -v gcloud >/dev/null 2>&1 ||
      refuse "gcloud is not on the PATH: install it (https://cloud.google.com/sdk/docs/install)"
  fi
  # https://cloud.google.com/sdk/gcloud/reference/auth/list
  do_it gcloud auth list --filter=status:ACTIVE '--format=value(account)' || { understand && fail "$WHY"; }
  if ((!dry)) && [[ -z "$ANSWER" ]]; then refuse "not logged in to Google Cloud: gcloud auth login"; fi
}

pause() { if ((!dry)); then sleep "${1:-$poll}"; fi; }

# Of what has happened; in a dry run nothing has.
tell() { if ((!dry)); then say "$@"; fi; }

# STATE of the `tpu-vm` or of the `queued-resources` of that name; ABSENT where there is none. A dry run takes $2.
# https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm/describe (and .../queued-resources/describe)
look() {
  local turn field=state
  if [[ "$1" == queued-resources ]]; then field=state.state; fi
  for ((turn = 1; ; turn++)); do
    if do_it gcloud compute tpus "$1" describe "$name" "${where[@]}" "--format=value($field)"; then break; fi
    understand
    if [[ "$KIND" == absent ]]; then
      ANSWER=ABSENT
      break
    fi
    if [[ "$KIND" == denied ]] || ((turn >= tries)); then return 1; fi
    pause
  done
  STATE="$ANSWER"
  if ((dry)); then STATE="$2"; fi
}

# For who cannot go on without an answer.
look_or_fail() { look "$@" || fail "cannot ask about $name: $WHY"; }

# A TPU VM in these states does not come back: https://cloud.google.com/tpu/docs/spot. In a queued resource that is
# preempted the VM may be gone altogether, and the queued resource is suspended.
is_gone() {
  look_or_fail tpu-vm READY
  case "$STATE" in
    PREEMPTED | TERMINATED) return 0 ;;
    ABSENT)
      if ((!queued)); then return 1; fi
      look_or_fail queued-resources ACTIVE
      case "$STATE" in SUSPENDED | SUSPENDING | FAILED) return 0 ;; esac
      STATE=ABSENT
      return 1
      ;;
  esac
  return 1
}

# ---------------------------------------------------------------------------------------------------- create, delete

# One attempt. KIND and WHY tell why it did not work.
order() {
  if ((queued)); then
    # https://cloud.google.com/sdk/gcloud/reference/compute/tpus/queued-resources/create
    do_it gcloud compute tpus queued-resources create "$name" --node-id="$name" "${where[@]}" \
      --accelerator-type="$type" --runtime-version="$runtime" ${price:+"$price"} \
      ${create_flags[@]+"${create_flags[@]}"} --quiet && return
  else
    # https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm/create
    do_it gcloud compute tpus tpu-vm create "$name" "${where[@]}" --accelerator-type="$type" --version="$runtime" \
      ${price:+"$price"} ${create_flags[@]+"${create_flags[@]}"} --quiet && return
  fi
  understand
  return 1
}

await_queue() {
  local told=""
  while :; do
    look queued-resources ACTIVE || return 1
    case "$STATE" in
      ACTIVE) return ;;
      SUSPENDING | SUSPENDED)
        KIND=preempted WHY="$name was preempted while it was being created"
        return 1
        ;;
      FAILED)
        do_it gcloud compute tpus queued-resources describe "$name" "${where[@]}" \
          '--format=value(state.failedData.error.message)' || true
        printf 'ERROR: %s\n' "${ANSWER:-the queued resource has failed}" >"$scratch/errors"
        understand
        return 1
        ;;
      ABSENT | DELETING)
        KIND=other WHY="someone deleted $name while it was being created"
        return 1
        ;;
    esac
    if [[ "$STATE" != "$told" ]]; then say "$name: $STATE" && told="$STATE"; fi
    in_time
    pause
  done
}

await_vm() {
  while :; do
    look tpu-vm READY || return 1
    case "$STATE" in
      READY) return ;;
      PREEMPTED | TERMINATED)
        KIND=preempted WHY="$name was preempted while it was being created"
        return 1
        ;;
      ABSENT | DELETING | STOPPED | STOPPING)
        KIND=other WHY="$name is $STATE instead of READY"
        return 1
        ;;
    esac
    in_time
    pause
  done
}

# The one case in which something stays on purpose: the place in the queue is worth something.
in_time() {
  if ((SECONDS - asked < longest)); then return; fi
  fail "$name is still $STATE after $longest s and stays so: the same create waits on; to give up: $(again delete)"
}

await() {
  asked=$SECONDS
  if ((queued)); then await_queue || return; fi
  await_vm
}

# Deletes whatever there is of that name; fails with WHY in words.
remove() {
  local turn what force
  look queued-resources "$( ((queued)) && printf ACTIVE || printf ABSENT)" || return 1
  # Deleting a queued resource with --force deletes its VM first.
  # https://cloud.google.com/sdk/gcloud/reference/compute/tpus/queued-resources/delete
  what=queued-resources force=--force
  if [[ "$STATE" == ABSENT ]]; then
    look tpu-vm READY || return 1
    if [[ "$STATE" == ABSENT ]]; then return; fi
    # https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm/delete
    what=tpu-vm force=""
  fi
  for ((turn = 1; ; turn++)); do
    if do_it gcloud compute tpus "$what" delete "$name" "${where[@]}" ${force:+"$force"} --quiet; then return; fi
    understand
    if [[ "$KIND" == absent ]]; then return; fi
    if ((turn >= tries)); then return 1; fi
    pause
  done
}

remove_or_fail() {
  remove || fail "$name could not be deleted and may go on costing money: $WHY; try $(again delete)"
}

# Nothing of that name is there: makes it, a bounded number of times, and leaves nothing half-made.
bring_up() {
  local turn why kind
  for ((turn = 1; ; turn++)); do
    creating=1
    tell "asking for $name: $type, runtime $runtime${price:+, ${price#--}}, $zone"
    if order && await; then
      creating=0
      tell "$name is there"
      return
    fi
    why="$WHY" kind="$KIND"
    remove || fail "$name was not created: $why; and its remains could not be deleted ($WHY): $(again delete)"
    creating=0
    case "$kind" in
      capacity | preempted) ((turn < tries)) || fail "$name was not created, $turn tries: $why; nothing is left of it" ;;
      *) fail "$name was not created: $why; nothing is left of it" ;;
    esac
    say "$why; nothing is left of it, trying again in $poll s"
    pause
  done
}

check_create() {
  [[ -n "$type" ]] || refuse "which TPU? --type v5litepod-16, v5p-8, v6e-8, ... (or export ACCELERATOR_TYPE=...)"
}

create() {
  if ((queued)); then look_or_fail queued-resources ABSENT; else look_or_fail tpu-vm ABSENT; fi
  case "$STATE" in
    ABSENT) bring_up ;;
    PREEMPTED | TERMINATED | FAILED | SUSPENDED | SUSPENDING)
      say "an earlier $name is $STATE and cannot come back: deleting it"
      remove_or_fail
      bring_up
      ;;
    *)
      say "$name is there already ($STATE): nothing is created, whatever its type"
      await || fail "$name will not be ready: $WHY; to delete it: $(again delete)"
      ;;
  esac
}

# ---------------------------------------------------------------------------------------------------- the workers

# One ssh or scp to every worker. Status: that of the remote side, or 255 no connection after all tries, or 75 the VM is
# preempted. gcloud itself tries each worker ten times; 1 and 255 are its own and ssh's failures.
reach() {
  local turn status
  silent=ssh
  for ((turn = 1; ; turn++)); do
    status=0
    do_it "$@" || status=$?
    case "$status" in 1 | 255) ;; *) return "$status" ;; esac
    find_silent
    cp -- "$scratch/errors" "$scratch/errors.ssh"
    if is_gone; then return 75; fi
    cp -- "$scratch/errors.ssh" "$scratch/errors"
    if [[ "$STATE" == ABSENT ]]; then fail "$name is not in $zone: $(again create)"; fi
    if ((turn >= tries)); then return 255; fi
    say "$silent of $name does not answer ($STATE), trying again in $poll s"
    pause
  done
}

# gcloud tells for each attempt which worker it is for; the silent one is that which it tried again.
find_silent() {
  silent="$(sed -n 's/^S[SC][HP]: Attempting to connect to worker \([0-9]*\).*/\1/p' "$scratch/errors" |
    sort -n | uniq -c | awk '$1 > 1 { printf "%s%s", (n++ ? ", " : ""), $2 }')"
  silent="${silent:+worker }${silent:-ssh}"
}

# https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm/ssh
on_all() { # WORDS of the remote command
  reach gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all ${ssh_flags[@]+"${ssh_flags[@]}"} --quiet \
    --command="$(quote "$@")"
}

# A remote command ended with $1: stops with a line, except for a preemption (75), which the caller has to handle.
settle() {
  local words
  words="$(grep -E '^tpu_worker.sh: ' "$scratch/errors" | tail -n 1)" || words="$(last_error)"
  case "$1" in
    75) return ;;
    127 | 5) fail "$name has no code yet: $(again setup)" ;;
    255) fail "$silent of $name does not answer after $tries tries (the VM is $STATE); it goes on costing money: $(again status), or $(again delete)" ;;
    *) fail "$2: $words; the VM stays: $(again logs), or $(again delete)" ;;
  esac
}

# The commit $commit, to every worker. Status 75: preempted.
copy_code() {
  local status=0 archive="$scratch/janus_jax_code.tar.gz"
  if ((dry)); then archive="${TMPDIR:-/tmp}/janus_jax_code.tar.gz"; fi # one that a reader of the commands can use
  do_it git -C "$ROOT" archive --format=tar.gz --prefix=code/ --output="$archive" "$commit" ||
    fail "git archive failed: $(last_error)"
  tell "copying commit ${commit:0:12} to every host and installing it: some minutes on a fresh VM"
  # The worker's half is that of this tree, as this half is: the two have to fit.
  # https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm/scp
  reach gcloud compute tpus tpu-vm scp "$archive" "$ROOT/launch/tpu_worker.sh" "$name:" "${where[@]}" --worker=all \
    ${ssh_flags[@]+"${ssh_flags[@]}"} --quiet || status=$?
  if ((status == 0)); then on_all bash tpu_worker.sh setup "$commit" || status=$?; fi
  if ((status)); then
    settle "$status" "the set-up failed"
    return "$status"
  fi
  tell "$name has commit ${commit:0:12} installed"
}

find_commit() {
  commit="$(git -C "$ROOT" rev-parse HEAD 2>/dev/null)" ||
    refuse "setup copies the commit HEAD, and $ROOT is no git checkout: git clone the repository, or git init and commit"
  if [[ -n "$(git -C "$ROOT" status --porcelain 2>/dev/null)" ]]; then
    say "uncommitted changes do not go along: the workers get commit ${commit:0:12}"
  fi
}

setup_all() {
  find_commit
  copy_code || fail "$name was preempted: $(again create), then setup again"
}

# ---------------------------------------------------------------------------------------------------- run

check_command() {
  local word next=0 workdir=""
  ((${#command[@]})) || refuse "what to run? ... -- python -m janus_jax.train_sft --config configs/NAME.py --workdir /mnt/BUCKET/DIR"
  for word in "${command[@]}"; do
    if ((next)); then workdir="$word" next=0; fi
    case "$word" in
      --workdir) next=1 ;;
      --workdir=*) workdir="${word#*=}" ;;
      --dry-run | --delete-on-finish | --detach | --spot | --queued)
        refuse "$word stands behind the -- and would go to the command: tpu.sh's own options go before it"
        ;;
    esac
  done
  case "$workdir" in
    "" | /mnt/*) ;;
    gs://*) refuse "--workdir $workdir is no folder: mount the bucket on every host (gcsfuse) and give /mnt/BUCKET/DIR" ;;
    *) say "--workdir $workdir is on the VM: a preemption or delete takes it along, and several hosts do not share it; a bucket mounted under /mnt lasts" ;;
  esac
  if ((retries && !detach)) && [[ -z "$type" ]]; then
    say "no --type: a preempted VM will not be made again"
  fi
}

# What the workers' lines in ANSWER come to, the worst first: one dead worker drags the others down with errors.
summarise() { # ACTION of tpu_worker.sh that they answer
  if ((dry)); then # nothing there, then started, then finished
    case "$1/$OUTCOME" in start/*) OUTCOME=running ;; state/running) OUTCOME=finished ;; *) OUTCOME=none ;; esac
  elif grep -Eq '^janus_job (lost|terminated) ' <<<"$ANSWER"; then
    OUTCOME=interrupted
    culprit="$(awk '/^janus_job (lost|terminated) / { print $2, "on", $4; exit }' <<<"$ANSWER")"
  elif grep -Eq '^janus_job exited [1-9]' <<<"$ANSWER"; then
    OUTCOME=failed
    culprit="$(awk '/^janus_job exited [1-9]/ { print "status", $3, "on", $4; exit }' <<<"$ANSWER")"
  elif grep -Eq '^janus_job none ' <<<"$ANSWER"; then
    OUTCOME=none
  elif grep -Eq '^janus_job running ' <<<"$ANSWER"; then
    OUTCOME=running
  elif grep -Eq '^janus_job exited 0 ' <<<"$ANSWER"; then
    OUTCOME=finished
  else
    OUTCOME=unknown
  fi
}

# One remote action, then OUTCOME.
attend() { # WORDS of tpu_worker.sh
  local status=0
  on_all bash tpu_worker.sh "$@" || status=$?
  if ((status)); then settle "$status" "the workers did not obey"; fi
  if ((status == 75)); then OUTCOME=preempted; else summarise "$1"; fi
}

watch_job() {
  while [[ "$OUTCOME" == running ]]; do
    pause $((10#$poll < 20 ? 10#$poll : 20)) # a host that died is to be named within a minute
    attend state
  done
  case "$OUTCOME" in
    failed) tell "the command failed with $culprit; looking whether $name is being taken away" ;;
    interrupted) tell "the job was $culprit; looking whether $name is being taken away" ;;
  esac
  # A machine that is being taken away says READY for a while, and its job has just ended.
  if [[ "$OUTCOME" == failed || "$OUTCOME" == interrupted ]]; then
    pause
    if is_gone; then OUTCOME=preempted; fi
  fi
}

# Before a start: what an earlier one left. A host that is started while another still runs would wait for it in vain.
clear_workers() {
  attend state
  if ((dry)) || ! grep -q '^janus_job running ' <<<"$ANSWER"; then return; fi
  if grep -Eq '^janus_job (lost|terminated|none|exited [1-9])' <<<"$ANSWER"; then
    tell "only some hosts of $name still run the job: stopping it there"
    attend stop
  elif grep -q '^janus_job exited 0 ' <<<"$ANSWER"; then
    watch_job
  fi
}

start_job() {
  clear_workers
  if [[ "$OUTCOME" == preempted ]]; then return; fi
  attend start "${command[@]}"
  case "$OUTCOME" in
    preempted) return ;;
    none | unknown) fail "the workers did not say that the job has started: $(again status), or $(again delete)" ;;
  esac
  # After a preemption the new VM gets the commit that this one had, not what HEAD has become meanwhile.
  if ((!dry)); then commit="$(awk '$1 == "janus_job" { print $5; exit }' <<<"$ANSWER")"; fi
  tell "started on $name; $(again logs) --follow"
}

begin_again() {
  [[ -n "$type" ]] || fail "$name was preempted, and without --type it cannot be made again: $(again delete), then create, setup and the same run"
  if [[ -z "$commit" ]]; then find_commit; fi
  remove_or_fail
  bring_up
  copy_code || true # preempted once more: the start below finds out
}

finish() { # MESSAGE of the end
  if ((delete_on_finish)); then
    remove_or_fail
    tell "$1; $name is deleted"
  else
    tell "$1; $name goes on costing money: $(again delete)"
  fi
}

give_up() { # the command failed by itself
  # The other workers may wait for the dead one for ever.
  on_all bash tpu_worker.sh stop || true
  on_all bash tpu_worker.sh logs 20 || true
  printf '%s\n' "$ANSWER"
  finish "the command failed with $culprit"
  exit 1
}

run_job() {
  local left=$retries
  OUTCOME=again
  if is_gone; then
    OUTCOME=preempted
  elif [[ "$STATE" == ABSENT ]]; then
    fail "$name is not in $zone: $(again create), then setup"
  fi
  watching=1
  while :; do
    case "$OUTCOME" in
      again)
        start_job
        if ((detach)) && [[ "$OUTCOME" != preempted ]]; then return; fi
        watch_job
        ;;
      finished) finish "the command has finished" && return ;;
      failed) give_up ;;
      preempted | interrupted)
        if ((left == 0)); then fail "$name was $OUTCOME and --retries $retries are used up; what is left of it: $(again status), $(again delete)"; fi
        left=$((left - 1))
        say "$name was $OUTCOME: going on, $left more times if need be"
        if [[ "$OUTCOME" == preempted ]]; then begin_again; fi # an interrupted one is cleared by start_job
        OUTCOME=again
        ;;
      *) fail "the job on $name is gone (someone else set the VM up again?): $(again status)" ;;
    esac
  done
}

# ---------------------------------------------------------------------------------------------------- logs, status

show_logs() {
  local words=(bash tpu_worker.sh logs "$lines") status=0
  if ((follow)); then words+=(follow); fi
  # Not through do_it: --follow has no end, so its lines have to come as they are.
  # https://cloud.google.com/sdk/gcloud/reference/compute/tpus/tpu-vm/ssh
  words=(gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker="$worker" ${ssh_flags[@]+"${ssh_flags[@]}"} --quiet
    --command="$(quote "${words[@]}")")
  if ((dry)); then
    do_it "${words[@]}"
    return
  fi
  "${words[@]}" 2>"$scratch/errors" </dev/null || status=$?
  case "$status" in
    0 | 130) return ;;
    5 | 127) fail "no log on $name yet: $(again setup), then run" ;;
  esac
  find_silent
  understand
  if [[ "$KIND" == other ]]; then WHY="$silent of $name does not answer: $(last_error)"; fi
  fail "no log: $WHY"
}

show_status() {
  local status=0
  look_or_fail queued-resources "$( ((queued)) && printf ACTIVE || printf ABSENT)"
  if [[ "$STATE" != ABSENT && -n "$STATE" ]]; then printf 'queued resource %s: %s\n' "$name" "$STATE" >&4; fi
  look_or_fail tpu-vm READY
  printf 'VM %s: %s\n' "$name" "$STATE" >&4
  if [[ "$STATE" != READY ]]; then return; fi
  on_all bash tpu_worker.sh state || status=$?
  case "$status" in
    0) printf '%s\n' "$ANSWER" | awk '$1 == "janus_job" { printf "job on %s: %s%s, commit %s\n", $4, $2, ($3 == "-" ? "" : " with " $3), $5 }' >&4 ;;
    127) printf 'job: none, not set up yet\n' >&4 ;;
    *) settle "$status" "no word about the job" ;;
  esac
}

# ---------------------------------------------------------------------------------------------------- main

action="${1:-}"
case "$action" in
  create | setup | run | logs | status | delete) shift ;;
  -h | --help | help) usage && exit ;;
  "") refuse "what to do? create, setup, run, logs, status or delete; launch/tpu.sh --help" ;;
  *) refuse "unknown subcommand '$action': create, setup, run, logs, status or delete; launch/tpu.sh --help" ;;
esac
parse "$@"
check
if [[ "$action" != run ]] && ((${#command[@]})); then refuse "only run takes a command after --"; fi

# Dry: the commands on standard output (3), what a command would have printed nowhere (4).
exec 3>&1 4>&1
if ((dry)); then exec 4>/dev/null; fi
where=(--zone="$zone" ${project:+"--project=$project"})
silent="" culprit="" commit="" asked=0
scratch="$(mktemp -d "${TMPDIR:-/tmp}/janus_tpu.XXXXXX")"
: >"$scratch/errors"
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

case "$action" in create) check_create ;; run) check_command ;; esac
need_gcloud
case "$action" in
  create) create ;;
  setup) setup_all ;;
  run) run_job ;;
  logs) show_logs ;;
  status) show_status ;;
  delete)
    remove_or_fail
    tell "$name is deleted"
    ;;
esac
