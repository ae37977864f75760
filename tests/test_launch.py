"""launch/tpu.sh: its dry runs against goldens, its life cycle on a stub of gcloud; shellcheck; the JobSet manifest.

Where the goldens change on purpose: UPDATE_GOLDENS=1 python -m pytest tests/test_launch.py -k golden
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
GOLDENS = Path(__file__).parent / "goldens_launch"
WHERE = ["--name", "janus", "--zone", "us-west4-a"]
TRAIN = ["--", "python", "-m", "janus_jax.train_sft", "--config", "configs/x.py", "--workdir", "/mnt/bucket/sft"]
TRAIN += ["--config.mesh=(-1,4,1)", "--config.title=it's one"]
NOTHING = ""


def failing(message, status=1):
    return f"stderr={message}\tstatus={status}"


QUOTA = "ERROR: (gcloud.compute.tpus.tpu-vm.create) Quota limit 'TPUV5sLitepodPerProjectPerZone' has been exceeded."
FULL = 'ERROR: (gcloud.compute.tpus.tpu-vm.create) There is no more capacity in the zone "us-west4-a"; try another'
REFUSED = failing("SSH: Attempting to connect to worker 0...\\nssh: connect to host 1.2.3.4: Connection refused", 255)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """A git repository with the launchers, whose set-up installs nothing."""
    repo = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "launch", repo / "launch")
    with open(repo / "launch" / "setup.sh", "a") as file:
        file.write(
            'find_python() { [[ ! -e "$HOME/old" ]] || [[ -n "${PYTHON:-}" ]] && echo "${PYTHON:-python3}"; }\n'
            'setup() { [[ ! -e "$HOME/broken" ]] || { say "pip could not install the package"; exit 1; }\n'
            '  mkdir -p "$ROOT/.venv/bin"; find_python >"$ROOT/.venv/made-with"\n'
            f'  printf \'#!/bin/sh\\nexec {sys.executable} "$@"\\n\' >"$ROOT/.venv/bin/python"\n'
            '  chmod +x "$ROOT/.venv/bin/python"; }\n'
        )
    git = ["git", "-C", str(repo), "-c", "user.name=x", "-c", "user.email=x@example.com"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "code"]):
        subprocess.run([*git, *words], check=True)
    return repo


class Cloud:
    def __init__(self, checkout, folder):
        self.checkout, self.stub, self.temporary = checkout, folder / "stub", folder / "tmp"
        bin = folder / "bin"
        for path in (self.stub, self.stub / "events", self.temporary, bin):
            path.mkdir()
        shutil.copy(Path(__file__).parent / "stub_gcloud.sh", bin / "gcloud")
        (bin / "hostname").write_text("#!/bin/sh\necho $WORKER\n")
        (bin / "mountpoint").write_text("#!/bin/sh\n")  # whatever is asked about is one
        # the metadata server: a file of $STUB for each attribute, and the worker's number
        (bin / "curl").write_text(
            '#!/bin/sh\nfor url in "$@"; do :; done\ncase "$url" in\n'
            '*/attributes/agent-worker-number) echo "${WORKER#host-w}" ;;\n'
            '*/attributes/*) cat "$STUB/${url##*/}" 2>/dev/null || exit 22 ;;\n*) exit 6 ;;\nesac\n'
        )
        for path in bin.iterdir():
            path.chmod(0o755)
        self.env = {
            "PATH": f"{bin}:/usr/bin:/bin",
            "HOME": str(folder),
            "STUB": str(self.stub),
            "TMPDIR": str(self.temporary),
            "TPU_POLL": "0",
            "LC_ALL": "C",
        }

    def tpu(self, *args, **env):
        command = ["bash", str(self.checkout / "launch" / "tpu.sh"), *args]
        self.run = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**self.env, **env})
        return self.run

    def ok(self, *args, **env):
        run = self.tpu(*args, **env)
        assert run.returncode == 0, run.stderr
        return run

    def refused(self, status, *args, **env):
        """The last line, which names what is wrong and the mend; the lines before it tell of the tries."""
        run = self.tpu(*args, **env)
        assert run.returncode == status, run.stderr
        lines = run.stderr.splitlines()
        assert lines and all(line.startswith("tpu.sh: ") for line in lines), run.stderr
        if status == 2:
            assert len(lines) == 1, run.stderr
        assert "Traceback" not in run.stderr
        return lines[-1]

    def script(self, **events):
        """What happens at the next calls of a kind, e.g. ssh_state=[NOTHING, "preempt"]; see stub_gcloud.sh."""
        for path in (self.stub / "events").iterdir():
            path.unlink()
        for kind, lines in events.items():
            (self.stub / "events" / kind.replace("_", "-")).write_text("".join(line + "\n" for line in lines))

    def set(self, name, text):
        (self.stub / name).write_text(text)

    def state(self, name):
        path = self.stub / name
        return path.read_text() if path.exists() else None

    def calls(self, words=""):
        path = self.stub / "calls"
        return [line for line in path.read_text().splitlines() if words in line] if path.exists() else []

    def kill(self, worker="w*"):
        """A power cut: nothing of the job has time for anything."""
        for job in self.stub.glob(f"{worker}/janus_jax_job"):
            for kill, name in ((os.kill, "pid"), (os.killpg, "group")):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    kill(int((job / name).read_text()), signal.SIGKILL)


@pytest.fixture
def cloud(checkout, tmp_path):
    cloud = Cloud(checkout, tmp_path)
    yield cloud
    cloud.kill()


@pytest.fixture(scope="session")
def prepared(checkout, tmp_path_factory):
    """A VM of two hosts that is set up: made once, copied by `ready`."""
    cloud = Cloud(checkout, tmp_path_factory.mktemp("prepared"))
    cloud.set("hosts", "2")
    cloud.ok("create", *WHERE, "--type", "v5litepod-16")
    cloud.ok("setup", *WHERE)
    return cloud.stub


@pytest.fixture
def ready(cloud, prepared):
    shutil.copytree(prepared, cloud.stub, dirs_exist_ok=True)
    return cloud


def shell(text):
    return ["--", "bash", "-c", text]


DRY_RUNS = {
    "create_one_host": ["create", *WHERE, "--type", "v6e-1", "--project", "p"],
    "create_many_hosts": ["create", *WHERE, "--type", "v5p-16", "--reserved", "--create-flag=--network=n"],
    "create_queued_spot": ["create", *WHERE, "--type", "v5litepod-16", "--queued", "--spot"],
    "create_v4": ["create", *WHERE, "--type", "v4-8", "--runtime", "tpu-vm-v4-base"],
    "setup": ["setup", *WHERE],
    "run_one_host": ["run", *WHERE, "--type", "v6e-1", *TRAIN],
    "run_queued_spot": ["run", *WHERE, "--type", "v5litepod-16", "--queued", "--spot", "--delete-on-finish", *TRAIN],
    "run_detached": ["run", *WHERE, "--detach", "--internal-ip", *TRAIN],
    "logs": ["logs", *WHERE, "--worker", "1", "--follow"],
    "status": ["status", *WHERE],
    "delete": ["delete", *WHERE],
    "delete_queued": ["delete", *WHERE, "--queued"],
}


def dry_run(cloud, name):
    action, *rest = DRY_RUNS[name]
    out = cloud.ok(action, "--dry-run", *rest, TMPDIR="/tmp").stdout
    assert not cloud.calls(), "a dry run called gcloud"
    return re.sub(r"\b[0-9a-f]{40}\b", "COMMIT", out.replace(str(cloud.checkout), "ROOT"))


@pytest.mark.parametrize("name", DRY_RUNS)
def test_golden_dry_run(cloud, name):
    out, path = dry_run(cloud, name), GOLDENS / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDENS"):
        path.write_text(out)
    assert out == path.read_text(), f"{path} differs; if that is meant: see the top of this file"
    assert cloud.run.stderr == ""


def test_dry_run_can_be_pasted(cloud):
    """The shell reads the printed words back, and the remote shell those of --command, as they were given."""
    line = next(line for line in dry_run(cloud, "run_one_host").splitlines() if " start " in line)
    remote = next(word for word in shlex.split(line) if word.startswith("--command="))
    assert shlex.split(remote.removeprefix("--command="))[3:] == TRAIN[1:]


@pytest.mark.slow  # gcloud's own parser: several seconds, offline; only where gcloud is installed
def test_gcloud_knows_the_flags(cloud, tmp_path):
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        pytest.skip("no gcloud here")
    lines = {line for name in DRY_RUNS for line in dry_run(cloud, name).splitlines() if line.startswith("gcloud")}
    lines = sorted({re.sub(r" '?--command=.*", " --command=x", line) for line in lines})
    path = tmp_path / "commands.json"
    path.write_text(json.dumps([{"command_string": line} for line in lines]))
    lint = [gcloud, "meta", "lint-gcloud-commands", f"--commands-file={path}"]
    env = {**os.environ, "CLOUDSDK_CONFIG": str(tmp_path)}
    out = subprocess.run(lint, capture_output=True, text=True, env=env, check=True).stdout
    verdicts = json.loads(out)
    assert len(verdicts) == len(lines)
    assert [(v["command_string"], v["error_message"]) for v in verdicts if not v["success"]] == []


@pytest.mark.parametrize(
    "args, words",
    [
        ([], "create, setup, run"),
        (["launch"], "unknown subcommand 'launch'"),
        (["create", "--zone", "us-west4-a", "--type", "v6e-1"], "--name"),
        (["create", "--name", "a", "--type", "v6e-1"], "--zone"),
        (["create", *WHERE], "--type"),
        (["create", *WHERE, "--type", "v9-8"], "v5litepod-16"),
        (["create", *WHERE, "--type", "v4-12"], "unknown"),
        (["create", *WHERE, "--type", "v5e-16"], "is called v5litepod-16"),
        (["create", *WHERE, "--type", "tpu7x-8"], "jobset.yaml"),
        (["create", *WHERE, "--type", "v6e-1", "--spot", "--reserved"], "exclude"),
        (["create", "--name", "a", "--zone", "us-west4", "--type", "v6e-1"], "no zone"),
        (["create", "--name", "A_B", "--zone", "us-west4-a", "--type", "v6e-1"], "lower-case"),
        (["create", *WHERE, "--nonsense", "1"], "unknown option --nonsense"),
        (["create", *WHERE, "--type"], "needs a value"),
        (["run", *WHERE], "what to run"),
        (["run", *WHERE, "python"], "' -- '"),
        (["run", *WHERE, *TRAIN, "--dry-run"], "before it"),
        (["run", *WHERE, "--retries", "often", *TRAIN], "whole number"),
        (["setup", *WHERE, *TRAIN], "only run"),
    ],
)
def test_bad_input(cloud, args, words):
    assert words in cloud.refused(2, *args)
    assert not cloud.calls()


def test_no_gcloud_and_not_logged_in(cloud, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "basename", "cat", "dirname", "grep", "mktemp", "rm", "sed"):
        (tools / tool).symlink_to(shutil.which(tool))
    assert "install it" in cloud.refused(2, "status", *WHERE, PATH=str(tools))
    cloud.script(auth=["status=0"])
    assert "gcloud auth login" in cloud.refused(2, "status", *WHERE)
    expired = "ERROR: There was a problem refreshing your current auth tokens: Reauthentication failed."
    cloud.script(describe_vm=[failing(expired)])
    assert "gcloud auth login" in cloud.refused(2, "create", *WHERE, "--type", "v6e-1")
    unset = "ERROR: (gcloud.x) The required property [project] is not currently set."
    cloud.script(describe_vm=[failing(unset)])
    assert "--project" in cloud.refused(2, "create", *WHERE, "--type", "v6e-1")


def test_environment_and_help(cloud):
    env = {"TPU_NAME": "n", "ZONE": "us-east5-b", "ACCELERATOR_TYPE": "v6e-8", "PROJECT_ID": "p"}
    out = cloud.ok("create", "--dry-run", **env).stdout
    assert "create n --zone=us-east5-b --project=p --accelerator-type=v6e-8" in out
    assert "create m " in cloud.ok("create", "--dry-run", "--name=m", **env).stdout
    text = cloud.ok("--help").stdout
    assert "Examples" in text and text.count("launch/tpu.sh create") >= 3 and "set -euo" not in text


@pytest.mark.parametrize("queued", [[], ["--queued", "--spot"]], ids=["direct", "queued"])
def test_life_cycle(cloud, queued, tmp_path):
    cloud.set("hosts", "2")
    cloud.ok("create", *WHERE, "--type", "v5litepod-16", *queued)
    assert cloud.state("vm") == "READY" and cloud.state("qr") == ("ACTIVE" if queued else None)
    cloud.ok("setup", *WHERE)
    go = tmp_path / "go"
    job = f"echo hello from $WORKER on $JANUS_COMMIT; which python; until [ -e {go} ]; do sleep 0.05; done"
    cloud.ok("run", *WHERE, "--detach", *shell(job))
    out = cloud.ok("status", *WHERE).stdout
    commit = subprocess.check_output(["git", "-C", str(cloud.checkout), "rev-parse", "HEAD"], text=True).strip()
    assert f"job on host-w0: running, commit {commit}" in out and "host-w1: running" in out and "VM janus: READY" in out
    assert ("queued resource janus: ACTIVE" in out) == bool(queued)
    # The same command again does not start a second one, another one is refused.
    cloud.ok("run", *WHERE, "--detach", *shell(job))
    assert "another command" in cloud.refused(1, "run", *WHERE, *shell("true"))
    assert "a job is running here" in cloud.refused(1, "setup", *WHERE)
    cloud.script(ssh_state=[NOTHING, f"touch={go}"])
    cloud.ok("run", *WHERE, *shell(job))
    log = cloud.ok("logs", *WHERE, "--worker", "1").stdout
    assert log.count("hello from host-w1") == 1 and f"on {commit}" in log and "ended: 0" in log
    assert "janus_jax_job/code/.venv/bin/python" in log
    assert "exited with 0" in cloud.ok("status", *WHERE).stdout
    cloud.ok("delete", *WHERE)
    assert cloud.state("vm") is None and cloud.state("qr") is None
    assert "VM janus: ABSENT" in cloud.ok("status", *WHERE).stdout
    cloud.ok("delete", *WHERE)  # nothing there: that is what was asked for
    assert len(list(cloud.temporary.iterdir())) == 2, "gcloud's words are kept of the two failures, else nothing"


def test_a_second_create_makes_nothing(ready):
    ready.ok("create", *WHERE, "--type", "v6e-1")
    assert len(ready.calls(" create ")) == 1
    assert "nothing is created" in ready.run.stderr


WHO = shell('echo "process ${JAX_PROCESS_ID:-} of ${JAX_NUM_PROCESSES:-} at ${JAX_COORDINATOR_ADDRESS:-}"')


def test_the_hosts_of_a_slice_know_their_place(ready):
    ready.set("worker-network-endpoints", "unknown:unknown:10.0.0.5,unknown:unknown:10.0.0.6\n")
    ready.ok("run", *WHERE, *WHO)
    for worker in "01":
        log = ready.ok("logs", *WHERE, "--worker", worker).stdout
        assert f"process {worker} of 2 at 10.0.0.5:8482" in log


@pytest.mark.parametrize("told", ["unknown:unknown:10.0.0.5\n", None], ids=["one host", "no metadata"])
def test_a_host_alone(ready, told):
    if told:
        ready.set("worker-network-endpoints", told)
    ready.ok("run", *WHERE, *WHO)
    log = ready.ok("logs", *WHERE).stdout
    assert "process  of  at \n" in log
    assert ("going on as one host" in log) == (told is None)


def test_setup_replaces_the_code_and_keeps_results(ready):
    code = ready.stub / "w1" / "janus_jax_job" / "code"
    (code / "stale.py").write_text("")
    (code / "runs").mkdir()
    (code / ".venv" / "kept").write_text("")
    ready.ok("setup", *WHERE)
    assert not (code / "stale.py").exists() and (code / "runs").exists() and (code / ".venv" / "kept").exists()


def test_a_python_is_fetched_where_it_is_too_old(ready):
    """The TPU images have 3.10. Here uv is there already; otherwise pip installs it."""
    home = ready.stub / "w1"
    (home / "old").write_text("")
    (home / ".local" / "bin").mkdir(parents=True)
    uv = home / ".local" / "bin" / "uv"
    uv.write_text('#!/bin/sh\necho "$@" >>$HOME/uv\n[ "$2" != find ] || echo /managed/python3.12\n')
    uv.chmod(0o755)
    ready.ok("setup", *WHERE)
    made_with = [(ready.stub / w / "janus_jax_job/code/.venv/made-with").read_text() for w in ("w0", "w1")]
    assert made_with == ["python3\n", "/managed/python3.12\n"]
    assert (home / "uv").read_text() == "python install 3.12\npython find 3.12\n"


def test_setup_fails_on_one_worker(ready):
    (ready.stub / "w1" / "broken").write_text("")
    line = ready.refused(1, "setup", *WHERE)
    assert "host-w1: the set-up ended with status 1" in line and "launch/tpu.sh delete" in line
    assert "no code yet" in ready.refused(1, "run", *WHERE, *shell("true"))


def test_run_without_setup(cloud):
    cloud.ok("create", *WHERE, "--type", "v6e-1")
    assert "launch/tpu.sh setup" in cloud.refused(1, "run", *WHERE, *shell("true"))
    assert "not set up" in cloud.ok("status", *WHERE).stdout
    cloud.ok("delete", *WHERE)
    assert "launch/tpu.sh create" in cloud.refused(1, "run", *WHERE, *shell("true"))
    assert "launch/tpu.sh create" in cloud.refused(1, "setup", *WHERE)


def test_a_command_that_fails(ready):
    line = ready.refused(1, "run", *WHERE, *shell("echo oh no; [ $WORKER = host-w0 ] || exit 3; sleep 100"))
    assert "failed with status 3 on host-w1;" in line and "delete" in line
    assert "failed with status 3 on host-w1; looking whether" in ready.run.stderr  # at once
    assert "oh no" in ready.run.stdout
    assert ready.state("vm") == "READY"
    assert "host-w0: terminated" in ready.ok("status", *WHERE).stdout  # it would have waited for ever
    assert len(ready.calls("start")) == 1, "a command that fails is not tried again"
    ready.refused(1, "run", *WHERE, "--delete-on-finish", *shell("exit 3"))
    assert ready.state("vm") is None


def test_interrupted_while_watching(ready, tmp_path):
    """Ctrl-C leaves the job alone and says so."""
    ready.script(ssh_state=[NOTHING, NOTHING, f"touch={tmp_path}/watched"])
    command = ["bash", str(ready.checkout / "launch" / "tpu.sh"), "run", *WHERE, *shell("sleep 100")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ready.env)
    deadline = time.monotonic() + 30
    while not (tmp_path / "watched").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    line = process.communicate(timeout=30)[1].splitlines()[-1]
    assert process.returncode == 130 and "the job goes on" in line and "delete" in line
    assert "host-w0: running" in ready.ok("status", *WHERE).stdout


def test_delete_on_finish(ready):
    ready.ok("run", *WHERE, "--delete-on-finish", *shell("true"))
    assert ready.state("vm") is None


def test_local_workdir_is_warned_of(ready):
    ready.ok("run", *WHERE, *shell("true"), "--workdir=runs/x")
    assert sum("--workdir runs/x is on the VM" in line for line in ready.run.stderr.splitlines()) == 1
    ready.ok("run", *WHERE, *shell("true"), "--workdir", "/mnt/b/x")
    assert "is on the VM" not in ready.run.stderr


def test_quota(cloud):
    cloud.script(create=[failing(QUOTA)])
    line = cloud.refused(1, "create", *WHERE, "--type", "v5litepod-16")
    assert "quota" in line and "iam-admin/quotas" in line and "nothing is left" in line
    assert len(cloud.calls("create")) == 1, "more quota does not come by asking again"
    saved = re.search(r"own words: (.*)\)", line)[1]
    assert QUOTA in Path(saved).read_text()


def test_quota_of_a_queued_resource(cloud):
    cloud.set("reason", "Quota limit 'TPUV6EPreemptiblePerProjectPerRegionForTPUAPI' has been exceeded.")
    cloud.script(describe_qr=[NOTHING, "qr=FAILED"])
    assert "iam-admin/quotas" in cloud.refused(1, "create", *WHERE, "--type", "v6e-8", "--queued")
    assert cloud.state("qr") is None and cloud.state("vm") is None


def test_no_capacity(cloud):
    cloud.script(create=[failing(FULL)] * 2)
    cloud.ok("create", *WHERE, "--type", "v5litepod-16")
    assert len(cloud.calls("tpu-vm create")) == 3
    cloud.ok("delete", *WHERE)
    cloud.script(create=[failing(FULL)] * 9)
    line = cloud.refused(1, "create", *WHERE, "--type", "v5litepod-16", "--tries", "2")
    assert "2 tries" in line and "--queued" in line
    assert len(cloud.calls("tpu-vm create")) == 5


def test_waits_in_the_queue(cloud):
    cloud.script(describe_qr=[NOTHING, "qr=WAITING_FOR_RESOURCES", "qr=PROVISIONING", "qr=ACTIVE"])
    cloud.ok("create", *WHERE, "--type", "v5litepod-16", "--queued")
    assert "WAITING_FOR_RESOURCES" in cloud.run.stderr and "PROVISIONING" in cloud.run.stderr
    cloud.ok("delete", *WHERE)
    cloud.script(describe_qr=[NOTHING, "qr=WAITING_FOR_RESOURCES"])
    line = cloud.refused(1, "create", *WHERE, "--type", "v5litepod-16", "--queued", "--wait", "0")
    assert "waits on" in line and "launch/tpu.sh delete" in line
    assert cloud.state("qr") == "WAITING_FOR_RESOURCES", "the place in the queue is kept"


@pytest.mark.parametrize("queued", [[], ["--queued"]], ids=["direct", "queued"])
def test_preempted_while_creating(cloud, queued):
    kind = "describe_qr" if queued else "describe_vm"
    cloud.script(**{kind: [NOTHING, "preempt"]})
    cloud.ok("create", *WHERE, "--type", "v5litepod-16", "--spot", *queued)
    assert cloud.state("vm") == "READY" and "preempted" in cloud.run.stderr
    assert len(cloud.calls(" create ")) == 2 and len(cloud.calls(" delete ")) == 1


def test_half_created_and_not_deletable(cloud):
    cloud.script(create=["vm=CREATING\t" + failing(QUOTA)], delete=[failing("ERROR: internal error")] * 3)
    line = cloud.refused(1, "create", *WHERE, "--type", "v5litepod-16")
    assert "could not be deleted" in line and "launch/tpu.sh delete --name janus --zone us-west4-a" in line
    cloud.ok("delete", *WHERE)
    assert cloud.state("vm") is None


def resumable(folder):
    """Counts its starts in `folder`, which outlives the VM; the first start goes on until it is killed."""
    return shell(f'echo x >>{folder}/starts-$WORKER; [ "$(wc -l <{folder}/starts-$WORKER)" -gt 1 ] || sleep 100')


def started(folder, workers=("w0", "w1")):
    """Waits until the job of `resumable` counts its start on every host: a kill before that would not be a second."""
    deadline = time.time() + 30
    while not all((folder / f"starts-host-{worker}").exists() for worker in workers):
        assert time.time() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("queued", [[], ["--queued"]], ids=["direct", "queued"])
def test_preempted_while_running(cloud, queued, tmp_path):
    flags = [*WHERE, "--type", "v5litepod-16", "--spot", *queued]
    cloud.set("hosts", "2")
    cloud.ok("create", *flags)
    cloud.ok("setup", *WHERE)
    cloud.script(ssh_state=[NOTHING, "preempt"])
    cloud.ok("run", *flags, "--delete-on-finish", *resumable(tmp_path))
    assert [(tmp_path / f"starts-host-w{i}").read_text() for i in (0, 1)] == ["x\n" * 2] * 2
    assert len(cloud.calls(" create ")) == 2 and len(cloud.calls("tpu_worker.sh setup")) == 2
    assert cloud.state("vm") is None and cloud.state("qr") is None


def test_preempted_once_too_often(ready, tmp_path):
    ready.script(ssh_state=["preempt", "preempt"])
    line = ready.refused(1, "run", *WHERE, "--type", "v5litepod-16", "--retries", "1", *shell("sleep 100"))
    assert "--retries 1 are used up" in line and "delete" in line
    assert len(ready.calls(" create ")) == 2
    ready.set("vm", "PREEMPTED")
    line = ready.refused(1, "run", *WHERE, *shell("true"))
    assert "without --type" in line


def test_a_machine_that_ends_is_no_finish(ready, tmp_path):
    """The trainings save at SIGTERM and leave with 0, and the VM says READY for a while after it."""
    starts = f"{tmp_path}/starts-$WORKER"
    job = f'trap "exit 0" TERM; echo x >>{starts}; [ "$(wc -l <{starts})" -gt 1 ] || while :; do sleep 0.05; done'
    ready.script(ssh_state=[NOTHING, NOTHING, "shutdown"])
    ready.ok("run", *WHERE, *shell(job))
    assert "janus was interrupted: going on, 4 more times" in ready.run.stderr
    assert "the job was terminated on host-w" in ready.run.stderr
    assert (tmp_path / "starts-host-w0").read_text() == "x\n" * 2


def test_a_dying_machine_says_ready(ready, tmp_path):
    """The command has failed and the VM is READY; a look later it is preempted, which was the reason."""
    starts = f"{tmp_path}/starts-$WORKER"
    job = f'echo x >>{starts}; [ "$(wc -l <{starts})" -gt 1 ]'
    ready.script(describe_vm=[NOTHING, "preempt"])
    ready.ok("run", *WHERE, "--type", "v5litepod-16", *shell(job))
    assert (tmp_path / "starts-host-w1").read_text() == "x\n" * 2


def test_stop_lets_a_wrapped_training_save(ready, tmp_path):
    """A shell dies at SIGTERM at once, the training in it saves first."""
    inner = f'trap "sleep 0.3; echo saved >{tmp_path}/saved; exit 0" TERM; while :; do sleep 0.05; done'
    job = f"[ $WORKER = host-w0 ] || exit 3; bash -c {shlex.quote(inner)}; echo never"
    ready.refused(1, "run", *WHERE, *shell(job))
    assert (tmp_path / "saved").exists()


def test_the_commit_is_kept_after_a_preemption(ready, tmp_path):
    """HEAD may have moved on while the job runs; the new VM gets what the old one had."""
    git = ["git", "-C", str(ready.checkout)]
    commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    ready.script(ssh_state=[NOTHING, "preempt"])
    me = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
    subprocess.run([*git, *me, "commit", "-q", "--allow-empty", "-m", "next"], check=True)
    try:
        ready.ok("run", *WHERE, "--type", "v5litepod-16", *resumable(tmp_path))
    finally:
        subprocess.run([*git, "reset", "-q", "--hard", commit], check=True)
    setups = ready.calls("tpu_worker.sh setup")
    assert len(setups) == 2 and all(commit in line for line in setups)


def test_nothing_is_left_behind(ready):
    """A forgotten child would hold the TPU, and the lock."""
    ready.ok("run", *WHERE, *shell("sleep 100 & exit 0"))
    ready.ok("run", *WHERE, *shell("true"))


def test_lost_without_a_trace(ready, tmp_path):
    """A reboot: no status, the lock is free. The job is started again on the same VM."""
    ready.ok("run", *WHERE, "--detach", *resumable(tmp_path))
    started(tmp_path)
    ready.kill()
    assert "host-w0: lost" in ready.ok("status", *WHERE).stdout
    ready.ok("run", *WHERE, *resumable(tmp_path))
    assert (tmp_path / "starts-host-w1").read_text() == "x\n" * 2


def test_lost_on_one_host_only(ready, tmp_path):
    """The host that still runs would wait for the other: it is stopped, then both start together."""
    ready.ok("run", *WHERE, "--detach", *resumable(tmp_path))
    started(tmp_path)
    ready.kill("w0")
    ready.ok("run", *WHERE, *resumable(tmp_path))
    assert "only some hosts" in ready.run.stderr
    assert [(tmp_path / f"starts-host-w{i}").read_text() for i in (0, 1)] == ["x\n" * 2] * 2


def test_one_host_ends_before_the_other(ready, tmp_path):
    """`run` again in between waits for the other, instead of starting on one alone."""
    go = tmp_path / "go"
    job = f"echo x >>{tmp_path}/starts-$WORKER; [ $WORKER = host-w0 ] || until [ -e {go} ]; do sleep 0.05; done"
    ready.ok("run", *WHERE, "--detach", *shell(job))
    ready.script(ssh_state=[NOTHING, NOTHING, f"touch={go}"])
    ready.ok("run", *WHERE, *shell(job))
    assert [(tmp_path / f"starts-host-w{i}").read_text() for i in (0, 1)] == ["x\n" * 2] * 2


def test_ssh_refused_twice_then_fine(ready):
    ready.script(scp=[REFUSED] * 2, ssh=[REFUSED] * 2)
    ready.ok("setup", *WHERE)
    assert ready.run.stderr.count("does not answer") == 4


def test_ssh_refused_for_good(ready):
    ready.script(ssh=[REFUSED] * 9)
    line = ready.refused(1, "run", *WHERE, *shell("true"))
    assert "ssh of janus does not answer after 3 tries" in line and "launch/tpu.sh delete" in line
    assert len(ready.calls("tpu-vm ssh")) == 1 + 3, "the set-up's, then the tries"


def test_one_worker_down(ready):
    ready.set("down", "1")
    for action in (["setup"], ["status"], ["run", *shell("true")]):
        line = ready.refused(1, action[0], *WHERE, *action[1:])
        assert "worker 1 of janus does not answer" in line and "launch/tpu.sh delete" in line
    assert "worker 1" in ready.refused(1, "logs", *WHERE, "--worker", "1")


def test_uncommitted_changes_and_no_git(ready, tmp_path):
    note = ready.checkout / "note"
    note.write_text("")
    try:
        ready.ok("setup", *WHERE)
        assert "uncommitted changes do not go along" in ready.run.stderr
    finally:
        note.unlink()
    shutil.copytree(ready.checkout / "launch", tmp_path / "plain" / "launch")
    ready.checkout = tmp_path / "plain"
    assert "no git checkout" in ready.refused(2, "setup", *WHERE)


def test_shellcheck():
    found = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip("shellcheck is not installed")
    scripts = sorted(str(path) for path in (ROOT / "launch").glob("*.sh"))
    run = subprocess.run([found, "--external-sources", *scripts], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("term, status", [(True, 143), (False, 3)], ids=["preempted", "failed"])
def test_jobset_command(tmp_path, term, status):
    """A training that was told to stop has saved and left with 0: the pod must not count as finished."""
    manifest = yaml.safe_load((ROOT / "launch" / "jobset.yaml").read_text())
    (container,) = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]["containers"]
    python = tmp_path / "python"
    polite = f"trap 'touch {tmp_path}/saved; exit 0' TERM; touch {tmp_path}/on; while :; do sleep 0.05; done"
    python.write_text(f"#!/bin/bash\n{polite if term else 'exit 3'}\n")
    python.chmod(0o755)
    command = [re.sub(r"<([A-Z_]+)>", r"\1", word) for word in container["command"]]
    process = subprocess.Popen(command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    if term:
        deadline = time.monotonic() + 30
        while not (tmp_path / "on").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == status
    assert (tmp_path / "saved").exists() == term


@pytest.mark.parametrize("words", [("--workdir", "/mnt/pail/sft"), ("--config.init=/mnt/pail/sft",), ("/mnt/pail",)])
@pytest.mark.parametrize("mounted, works", [(True, True), (False, True), (False, False)])
def test_the_bucket_of_a_path_is_mounted(tmp_path, words, mounted, works):
    """On each host before the command starts, and again on a VM that was made again; a refusal starts nothing."""
    job, log = tmp_path / "janus_jax_job", tmp_path / "calls"
    (job / "code").mkdir(parents=True)
    (job / "commit").write_text("abc")
    stubs = {"mountpoint": "exit 1" if not mounted else "exit 0", "gcsfuse": f"exit {0 if works else 1}", "sudo": ":"}
    for name, does in {**stubs, "curl": "exit 22"}.items():
        (tmp_path / name).write_text(f'#!/bin/bash\necho "{name} $*" >>{log}\n{does}\n')
        (tmp_path / name).chmod(0o755)
    job_line = ["bash", "-c", f"touch {tmp_path}/ran", *words]
    line = ["bash", ROOT / "launch" / "tpu_worker.sh", "start", *job_line]
    env = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:/usr/bin:/bin"}
    run = subprocess.run([*map(str, line)], env=env, capture_output=True, text=True, timeout=60)
    calls = log.read_text().splitlines()
    assert calls[0] == "mountpoint -q /mnt/pail"
    if works:
        assert run.returncode == 0 and "janus_job" in run.stdout
        deadline = time.monotonic() + 30
        while not (job / "status").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (tmp_path / "ran").exists()
    else:
        assert run.returncode == 4 and "gs://pail could not be mounted" in run.stderr
        assert not (tmp_path / "ran").exists() and not (job / "command").exists()
    expected = ["sudo mkdir -p -- /mnt/pail", "gcsfuse --implicit-dirs --rename-dir-limit=200000 pail /mnt/pail"]
    assert [call for call in calls if call in expected] == ([] if mounted else expected)


def test_a_path_on_a_mounted_disk_is_no_bucket(tmp_path):
    """/mnt/disks/one is a mount, /mnt/disks is none: nothing is to be mounted over it."""
    (tmp_path / "mountpoint").write_text(f'#!/bin/bash\necho "$2" >>{tmp_path}/asked\n[[ "$2" == /mnt/disks/one ]]\n')
    (tmp_path / "mountpoint").chmod(0o755)
    line = ["bash", "-c", 'source "$1"; is_mounted "$2"', "x", str(ROOT / "launch" / "tpu_worker.sh")]
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)}
    assert subprocess.run([*line, "/mnt/disks/one/sft/a b"], env=env).returncode == 0
    assert (tmp_path / "asked").read_text().splitlines() == ["/mnt/disks", "/mnt/disks/one"]
    assert subprocess.run([*line, "/mnt/disks/two"], env=env).returncode == 1


def test_the_image_of_the_jobset():
    """Its lines, read; it has not been built. What it copies is there, and what the pods run is in it."""
    lines = (ROOT / "launch" / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split() for line in lines if line and not line.startswith("#")]
    assert steps[0][0] == "FROM" and re.search(r":\d", steps[0][1]), "a base image with its version"
    assert {step[0] for step in steps} <= {"FROM", "ENV", "WORKDIR", "COPY", "RUN", "ARG", "CMD"}
    copied = [source for step in steps if step[0] == "COPY" for source in step[1:-1]]
    assert all((ROOT / source).exists() for source in copied) and {"janus_jax", "configs"} <= set(copied)
    needed = re.findall(r'(?:with_name\(|read_text\()"([^"]+)"', (ROOT / "setup.py").read_text())
    assert needed and set(needed) <= set(copied), "what setup.py reads"
    names = [step[0] for step in steps]
    assert names.index("WORKDIR") < names.index("COPY") < names.index("RUN")
    assert json.loads(" ".join(steps[-1][1:])) == ["python", "-m", "janus_jax"]
    assert "launch/Dockerfile" in (ROOT / "launch" / "jobset.yaml").read_text()


def test_jobset():
    text = (ROOT / "launch" / "jobset.yaml").read_text()
    manifest = yaml.safe_load(text)
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert manifest["spec"]["network"]["enableDNSHostnames"] is True
    assert manifest["spec"]["failurePolicy"]["maxRestarts"] > 0
    (replicated,) = manifest["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    assert job["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
    # One pod a host; the chips of all hosts are those of the topology.
    rows, columns = map(int, pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"))
    (container,) = pod["containers"]
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert container["resources"]["requests"]["google.com/tpu"] == chips
    assert job["parallelism"] == job["completions"] == rows * columns // chips
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"] == "tpu-v5-lite-podslice"
    assert pod["terminationGracePeriodSeconds"] >= 120
    # the workdir lies on the bucket, not on the container's own disk
    (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
    assert mount["name"] == volume["name"] and f"--workdir={mount['mountPath']}/" in " ".join(container["command"])
    assert volume["csi"]["driver"] == "gcsfuse.csi.storage.gke.io"
    assert job["template"]["metadata"]["annotations"]["gke-gcsfuse/volumes"] == "true"
    placeholders = re.findall(r"<[A-Z_]+>", yaml.safe_dump(manifest))
    assert placeholders and all(f"#   {name}" in text for name in placeholders), "every placeholder is explained"
    assert "xpk workload create" in text and text.count("https://") >= 5
