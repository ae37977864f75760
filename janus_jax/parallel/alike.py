"""What the processes of a training must share: the code, the libraries and the settings."""

import collections
import hashlib
import importlib.metadata
import json
import os
import subprocess
from pathlib import Path

from flax.traverse_util import flatten_dict
from jax._src import distributed  # the key-value store of jax's coordinator, which has no public name


def facts(config) -> dict[str, str]:
    """What all processes must agree on: the code, the libraries, and every setting of a ConfigDict."""
    versions = {name: _version(name) for name in ("jax", "jaxlib", "libtpu", "numpy", "pillow")}
    settings = {f"config.{name}": json.dumps(value) for name, value in flat(config).items()}
    return {"commit": commit(), "code": _code(), **versions, **settings}


def flat(config) -> dict:
    """The settings of a ConfigDict by their dotted names, as the JSON values that they are on disk."""
    settings = flatten_dict(config.to_dict(), sep=".")
    return {name: json.loads(json.dumps(value, default=str)) for name, value in sorted(settings.items())}


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def commit() -> str:
    """The commit this code was checked out from: JANUS_COMMIT (launch/tpu.sh sets it, where there is no git folder), or
    git's word; else the package's version."""
    if os.environ.get("JANUS_COMMIT"):
        return os.environ["JANUS_COMMIT"][:12]
    try:
        line = ["git", "-C", str(Path(__file__).parents[1]), "rev-parse", "--short=12", "HEAD"]
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return _version("janus_jax")


def _code():
    """A digest of the package's own sources: what a commit does not say of files that were changed since."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def differences(of: dict[int, dict[str, str]]) -> str:
    """One line that names who differs in what, "" where all are alike. of: the facts by process."""
    parts = []
    for name in dict.fromkeys(name for one in of.values() for name in one):
        holders = collections.defaultdict(list)
        for index in sorted(of):
            holders[of[index].get(name, "absent")].append(index)
        if len(holders) > 1:
            told = [f"{value[:60]} on {processes(indices)}" for value, indices in holders.items()]
            parts.append(f"{name} is {', '.join(told)}")
    if not parts:
        return ""
    more = f"; and {len(parts) - 5} more" if len(parts) > 5 else ""
    return f"the processes differ: {'; '.join(parts[:5])}{more}: give all of them the same code and command"


def processes(indices):
    return f"process{'es' if len(indices) > 1 else ''} {', '.join(map(str, indices))}"


def refusal(mine: dict[str, str], index: int, count: int, patience: float = 300.0) -> str:
    """`differences` of all processes, the same on each; all call it once they have joined. mine: `facts` of process
    `index` of `count`; patience: seconds for the slowest to say so.

    Each puts a digest into the key-value store of jax's coordinator; where they differ, their facts follow."""
    store = distributed.global_state.client
    content = json.dumps(mine, sort_keys=True)

    def told(what, value):
        store.key_value_set(f"janus_jax/{what}/{index}", value)
        store.wait_at_barrier(f"janus_jax/{what}", int(1000 * patience))
        return {int(key.rpartition("/")[2]): value for key, value in store.key_value_dir_get(f"janus_jax/{what}/")}

    digests = told("digest", hashlib.sha256(content.encode()).hexdigest())
    kinds = {digest: min(i for i in digests if digests[i] == digest) for digest in digests.values()}
    if len(kinds) == 1:
        return ""
    said = told("facts", content if index in kinds.values() else "")  # one process of each kind
    return differences({i: json.loads(said[kinds[digests[i]]]) for i in range(count)})
