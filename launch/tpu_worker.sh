#!/usr/bin/env bash
# The half of launch/tpu.sh that runs on the TPU workers; tpu.sh copies it to each worker's home and calls it by ssh.
#   tpu_worker.sh setup COMMIT       unpacks ~/janus_jax_code.tar.gz and installs it (launch/setup.sh does that)
#   tpu_worker.sh start COMMAND...   starts COMMAND detached, or does nothing where this very command runs already
#   tpu_worker.sh state              one line: janus_job STATE STATUS HOST COMMIT
#   tpu_worker.sh logs LINES [follow]
#   tpu_worker.sh stop               SIGTERM, so that a training saves, and SIGKILL to what is left after two minutes
# STATE: none, running, exited (STATUS is the command's), terminated (by a signal to the whole machine), lost (it ended
# without a trace: a reboot, or out of memory). Everything lies in ~/janus_jax_job: code/ log command status commit pid
# group.
# Its own refusals end with 4 to 6: gcloud and ssh end with 1, 2, 127 or 255 when they mean themselves.
set -euo pipefail

JOB="$HOME/janus_jax_job"
CODE="$JOB/code"

tell() { printf 'tpu_worker.sh: %s: %s\n' "$(hostname)" "$*" >&2; }
give_up() { # STATUS MESSAGE
  tell "$2"
  exit "$1"
}

# The job holds this lock, its children inherit it: it is free as soon as nothing of the job is left, after a reboot too.
# Asking takes it shared, so that two who ask at once do not take each other for the job.
is_running() { [[ -f "$JOB/lock" ]] && ! flock --shared --nonblock "$JOB/lock" true; }

recorded() { if [[ -f "$JOB/$1" ]]; then cat "$JOB/$1"; else printf '%s' "$2"; fi; }

report() {
  local state status running=""
  status="$(recorded status -)"
  # A job may end between the two looks: it would seem lost, and be started again.
  if is_running; then running=1; else status="$(recorded status -)"; fi
  if [[ "$status" == terminated ]]; then
    state=terminated status=-
  elif [[ "$status" != - ]]; then
    state=exited
  elif [[ -n "$running" ]]; then
    state=running
  elif [[ -f "$JOB/command" ]]; then
    state=lost
  else
    state=none
  fi
  printf 'janus_job %s %s %s %s\n' "$state" "$status" "$(hostname)" "$(recorded commit -)"
}

# The TPU images are Ubuntu 22.04 with Python 3.10, the package wants 3.11. uv brings a Python of its own: no root, and
# no waiting for the lock that apt's unattended upgrade holds on a machine that has just started.
fetch_python() {
  local uv="$HOME/.local/bin/uv"
  tell "no Python >= 3.11 here: fetching one with uv"
  if command -v uv >/dev/null 2>&1; then uv="$(command -v uv)"; fi
  if [[ ! -x "$uv" ]]; then python3 -m pip install --user --quiet --disable-pip-version-check uv >&2; fi
  export UV_PYTHON_PREFERENCE=only-managed
  "$uv" python install 3.12 >&2
  PYTHON="$("$uv" python find 3.12)"
  export PYTHON
}

install_code() { # COMMIT
  mkdir -p -- "$CODE"
  # What an earlier commit had and this one has not must not stay; the installed .venv and local results must.
  find "$CODE" -mindepth 1 -maxdepth 1 ! -name .venv ! -name runs -exec rm -rf {} +
  tar -xzf "$HOME/janus_jax_code.tar.gz" -C "$JOB"
  # shellcheck source=launch/setup.sh
  source "$CODE/launch/setup.sh"
  find_python >/dev/null || fetch_python
  has_tpu || tell "no TPU is seen here: installing without the [tpu] extra"
  setup
  # Last: with it the worker counts as set up.
  printf '%s' "$1" >"$JOB/commit"
}

setup_worker() {
  local status=0
  if is_running; then give_up 6 "a job is running here: wait for its end, or delete the VM"; fi
  rm -f -- "$JOB/commit"
  # A shell of its own: `set -e` would not end a function that stands left of ||.
  bash -c 'source "$1"; install_code "$2"' tpu_worker "${BASH_SOURCE[0]}" "$1" || status=$?
  if ((status)); then give_up 4 "the set-up ended with status $status"; fi
  report
}

# https://cloud.google.com/storage/docs/cloud-storage-fuse/install
install_gcsfuse() {
  local keyring=/usr/share/keyrings/cloud.google.asc packages=https://packages.cloud.google.com/apt
  curl --silent --show-error --fail "$packages/doc/apt-key.gpg" | sudo tee "$keyring" >/dev/null
  echo "deb [signed-by=$keyring] $packages gcsfuse-$(lsb_release -cs) main" |
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
  # A machine that has just started upgrades itself, and holds the lock.
  sudo apt-get -o DPkg::Lock::Timeout=600 update >&2
  sudo apt-get -o DPkg::Lock::Timeout=600 install --yes gcsfuse >&2
}

mount_bucket() { # BUCKET PLACE
  command -v gcsfuse >/dev/null || install_gcsfuse
  sudo mkdir -p -- "$2"
  sudo chown "$(id -u)" "$2"
  # A checkpoint is complete once its folder has its name, which gcsfuse refuses a flat bucket unless it is told to.
  gcsfuse --implicit-dirs --rename-dir-limit=200000 "$1" "$2" >&2
}

# Whether a path is on a mount, its own or one above it, below /mnt.
is_mounted() { # PATH
  local above=/mnt part parts
  IFS=/ read -ra parts <<<"${1#/mnt/}"
  for part in "${parts[@]}"; do
    above+="/$part"
    if mountpoint -q "$above"; then return; fi
  done
  return 1
}

# What has to outlive this machine lies elsewhere. A path of the command in /mnt/NAME, or a --flag=path, where nothing is
# mounted is on the bucket NAME.
mount_buckets() { # COMMAND...
  local word name status
  for word in "$@"; do
    if [[ "$word" == --*=/mnt/* ]]; then word="${word#*=}"; fi
    if [[ "$word" != /mnt/?* ]] || is_mounted "$word"; then continue; fi
    name="${word#/mnt/}" name="${name%%/*}" status=0
    tell "nothing is mounted at /mnt/$name: mounting the bucket of that name"
    # A shell of its own: `set -e` would not end a function that stands left of ||.
    bash -c 'source "$1"; mount_bucket "$2" "$3"' tpu_worker "${BASH_SOURCE[0]}" "$name" "/mnt/$name" || status=$?
    if ((status)); then
      give_up 4 "gs://$name could not be mounted at /mnt/$name (status $status): may this VM's service account use it? Or mount a disk there"
    fi
  done
}

start() {
  local line turn
  if [[ ! -f "$JOB/commit" ]]; then give_up 5 "no code here yet: launch/tpu.sh setup"; fi
  line="$(printf '%q ' "$@")"
  if is_running; then
    if [[ "$line" != "$(recorded command "")" ]]; then give_up 6 "another command is running here: $(recorded command "")"; fi
    report
    return
  fi
  mount_buckets "$@"
  rm -f -- "$JOB/status"
  printf '%s' "$line" >"$JOB/command"
  printf '== %s %s\n' "$(date -u +%FT%TZ)" "$line" >>"$JOB/log"
  # A session of its own, so that the end of the ssh connection does not reach it.
  setsid nohup bash "${BASH_SOURCE[0]}" supervise "$@" >>"$JOB/log" 2>&1 </dev/null &
  for ((turn = 0; turn < 100; turn++)); do
    if [[ -f "$JOB/status" ]] || is_running; then break; fi
    sleep 0.1
  done
  report
}

metadata() { # ATTRIBUTE
  curl --silent --show-error --fail --max-time 10 --retry 3 --header 'Metadata-Flavor: Google' \
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}

# Where this host stands among those of its slice, for janus_jax/parallel/hosts.py; the first in the list is number 0. The names
# are those that jax reads (jax/_src/clusters/cloud_tpu_cluster.py). One host alone needs nothing.
find_place() {
  local hosts index first
  if [[ -n "${JAX_COORDINATOR_ADDRESS:-}" ]]; then return; fi
  if ! hosts="$(metadata worker-network-endpoints)" || ! index="$(metadata agent-worker-number)"; then
    tell "the metadata server does not tell the hosts of this slice: going on as one host"
    return
  fi
  IFS=, read -ra hosts <<<"$hosts" # WORDS:WORDS:ADDRESS of each
  if ((${#hosts[@]} < 2)); then return; fi
  first="${hosts[0]#*:*:}"
  export JAX_COORDINATOR_ADDRESS="${first%%:*}:8482" JAX_NUM_PROCESSES="${#hosts[@]}" JAX_PROCESS_ID="$index"
}

# Runs the command and records how it ended.
supervise() {
  local child="" status=0 terminated=0 turn
  exec 9>"$JOB/lock"
  flock --wait 5 9 # not --nonblock: someone may be asking just now
  printf '%s' "$$" >"$JOB/pid"
  # A preemption or a maintenance event ends the machine with SIGTERM to everyone. The training then saves and leaves
  # with 0, which must not read as finished.
  trap 'terminated=1; if [[ -n "$child" ]]; then kill -TERM -- "-$child" 2>/dev/null || true; fi' TERM
  cd -- "$CODE"
  export PATH="$CODE/.venv/bin:$PATH" PYTHONUNBUFFERED=1 JANUS_COMMIT
  JANUS_COMMIT="$(recorded commit "")"
  find_place
  set -m # the command gets a process group of its own, so that signals reach what it starts, too
  "$@" &
  child=$!
  set +m
  printf '%s' "$child" >"$JOB/group"
  while :; do # the trap ends `wait` before the child has ended
    status=0
    wait "$child" || status=$?
    if ! kill -0 "$child" 2>/dev/null; then break; fi
  done
  if ((terminated)); then
    status=terminated
    # The command may have been a shell, which dies at once, around a training that is still saving.
    for ((turn = 0; turn < 500; turn++)); do
      if ! kill -0 -- "-$child" 2>/dev/null; then break; fi
      sleep 0.2
    done
  fi
  kill -KILL -- "-$child" 2>/dev/null || true # what it left behind would hold the TPU
  printf '== %s ended: %s\n' "$(date -u +%FT%TZ)" "$status"
  printf '%s' "$status" >"$JOB/status.new"
  mv -- "$JOB/status.new" "$JOB/status"
}

stop() {
  local pid group turn
  pid="$(recorded pid "")" group="$(recorded group "")"
  if is_running && [[ -n "$pid" && -n "$group" ]]; then
    # Where the supervisor was killed, the command itself is told.
    kill -TERM "$pid" 2>/dev/null || kill -TERM -- "-$group" 2>/dev/null || true
    for ((turn = 0; turn < 600; turn++)); do
      if ! is_running; then break; fi
      sleep 0.2
    done
    if is_running; then kill -KILL -- "$pid" "-$group" 2>/dev/null || true; fi
  fi
  report
}

logs() {
  if [[ ! -f "$JOB/log" ]]; then give_up 5 "no log yet: launch/tpu.sh run"; fi
  if [[ "${2:-}" == follow ]]; then exec tail -n "$1" -F -- "$JOB/log"; fi
  tail -n "$1" -- "$JOB/log"
}

# Sourced for one function alone.
if [[ "${BASH_SOURCE[0]}" != "$0" ]]; then return; fi

action="${1:-}"
shift || true
case "$action" in
  setup) setup_worker "$@" ;;
  start) start "$@" ;;
  state) report ;;
  stop) stop ;;
  logs) logs "$@" ;;
  supervise) supervise "$@" ;;
  *) give_up 4 "unknown action '$action'" ;;
esac
