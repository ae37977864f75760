"""A Google Cloud of one TPU VM for tests/test_launch.py: put on the PATH as `gcloud`, it keeps its state in $STUB.

    vm, qr          the state of the TPU VM and of the queued resource; no file, no such thing
    w0, w1, ...     the homes of the workers; ssh runs the remote command there, scp copies into them
    hosts, down     how many workers a new VM has; the numbers of those that do not answer
    script.json     {kind: [event, ...]}: the next call of that kind takes the first event; null is none
    calls           every call, a line each
A kind is auth, create, delete, describe:vm, describe:qr, scp, ssh, or ssh:ACTION of tpu_worker.sh. An event may set `vm`
and `qr`, may `preempt`, may `touch` a file, and with `status` and `stderr` the call ends there. The messages are those of gcloud 528.0.0's source, or
were quoted in bug reports.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

STUB = Path(os.environ["STUB"])


def read(name, default=None):
    path = STUB / name
    return path.read_text() if path.exists() else default


def write(name, text):
    if text is None:
        (STUB / name).unlink(missing_ok=True)
    else:
        (STUB / name).write_text(text)


def workers():
    return sorted(STUB.glob("w[0-9]*"))


def kill_jobs():
    for home in workers():
        pid = home / "janus_jax_job" / "pid"
        if pid.exists():
            try:
                os.killpg(int(pid.read_text()), signal.SIGKILL)
            except ProcessLookupError:
                pass


def boot():
    write("vm", "READY")
    for index in range(int(read("hosts", "1"))):
        (STUB / f"w{index}").mkdir(exist_ok=True)


def remove_vm():
    kill_jobs()
    for home in workers():
        shutil.rmtree(home)
    write("vm", None)


def preempt():
    remove_vm()
    if read("qr"):
        write("qr", "SUSPENDED")
    else:
        write("vm", "PREEMPTED")


def end(status, message=""):
    if message:
        print(message, file=sys.stderr)
    sys.exit(status)


def play(kind):
    script = json.loads(read("script.json", "{}"))
    events = script.get(kind, [])
    event = (events.pop(0) if events else None) or {}
    write("script.json", json.dumps(script))
    if event.get("preempt"):
        preempt()
    if "touch" in event:
        Path(event["touch"]).touch()
    for name in ("vm", "qr"):
        if name in event:
            write(name, event[name])
    if "status" in event:
        end(event["status"], event.get("stderr", ""))


def need_vm(command):
    state = read("vm")
    if state is None:
        end(1, f"ERROR: (gcloud.compute.tpus.tpu-vm.{command}) NOT_FOUND: Resource 'nodes/x' was not found")
    if state in ("PREEMPTED", "TERMINATED"):
        end(
            1,
            f"ERROR: (gcloud.compute.tpus.tpu-vm.{command}) This TPU has terminal state \"{state}\", "
            "so it cannot be used anymore.",
        )


def chosen(args):
    which = next((a.split("=", 1)[1] for a in args if a.startswith("--worker=")), "0")
    return [home for home in workers() if which in ("all", home.name[1:])]


def on_each(args, program, action):
    """Runs action(home) where a worker answers; the status is the first that is not 0, as in gcloud."""
    first = 0
    down = read("down", "").split()
    for home in chosen(args):
        number = home.name[1:]
        if number in down:
            for _ in range(10):
                print(f"{program}: Attempting to connect to worker {number}...", file=sys.stderr)
                print(
                    f"Retrying: {program} command error: [/usr/bin/ssh] exited with return code [255].", file=sys.stderr
                )
            first = first or 255
            continue
        print(f"{program}: Attempting to connect to worker {number}...", file=sys.stderr)
        status = action(home)
        if status:
            message = f"##### Command execution on worker {number} failed with exit status {status}. Continuing."
            print(message, file=sys.stderr)
            first = first or status
    end(first)


def run_there(command):
    def action(home):
        env = {**os.environ, "HOME": str(home), "WORKER": f"host-{home.name}"}
        sys.stdout.flush()
        return subprocess.run(["bash", "-c", command], cwd=home, env=env, stdin=subprocess.DEVNULL).returncode

    return action


def main(args):
    with open(STUB / "calls", "a") as file:
        print(" ".join(args), file=file)
    if args[:2] == ["auth", "list"]:
        play("auth")
        print("someone@example.com")
        return
    assert args[:2] == ["compute", "tpus"], args
    what, verb, rest = args[2], args[3], args[4:]
    mine = "qr" if what == "queued-resources" else "vm"
    if verb == "create":
        assert read(mine) is None, "it is there already"
        play("create")
        if mine == "qr":
            write("qr", "ACTIVE")
        boot()
    elif verb == "describe":
        play(f"describe:{mine}")
        if read(mine) is None:
            end(1, f"ERROR: (gcloud.compute.tpus.{what}.describe) NOT_FOUND: Resource was not found")
        print(read(mine) if "failedData" not in args[-1] else read("reason", ""))
    elif verb == "delete":
        play("delete")
        assert read(mine) is not None, "it is not there"
        assert mine == "vm" or "--force" in rest
        remove_vm()
        write(mine, None)
    elif verb == "scp":
        play("scp")
        need_vm("scp")
        sources = [a for a in rest if not a.startswith("--")][:-1]
        on_each(rest, "SCP", lambda home: [shutil.copy(source, home) for source in sources] and 0)
    elif verb == "ssh":
        command = next(a.split("=", 1)[1] for a in rest if a.startswith("--command="))
        play("ssh")
        play(f"ssh:{command.split()[2]}")
        need_vm("ssh")
        on_each(rest, "SSH", run_there(command))
    else:
        raise AssertionError(args)


if __name__ == "__main__":
    main(sys.argv[1:])
