"""Says whether the judge of an experiment will do, before any accelerator is rented:

    python -m janus_jax.reward_check --config configs/X.py [--config.reward.url=http://HOST:8000/v1 ...]

Draws right and wrong pictures of the embedded world, has them scored as config.reward says, and prints one line per
check: does the endpoint answer, do its answers hold a score (of a chat endpoint: the logprobs of yes and no), how long
does it take, do right pictures score above wrong ones. Where config.task is "edit" the pictures are edits; where it is
"both" there are checks of both. A weighted reward is checked part by part, and its sum for the order. Exit status 0 if
usable, 1 if not. Needs no accelerator and loads no model."""

import sys
import time

import numpy as np

from janus_jax import cli
from janus_jax.errors import UserError
from janus_jax.rewards import probes, settings
from janus_jax.rewards.endpoint import UNUSABLE
from janus_jax.rewards.judge import FOLLOWING, PRESERVING, combine, of_task

ONE_BY_ONE = 20  # pictures timed alone
MOST_MISSING = 0.1  # share of rewards: a healthy endpoint loses next to none
# Of the pairs, how many must be in order; a judge that guesses is under it in 99 of 100 checks (24 fair coins)
IN_ORDER = 0.75


def report(good: bool, check: str, line: str) -> bool:
    """Prints the outcome of one check, and returns it."""
    print(f"{'ok  ' if good else 'FAIL'}  {check}: {line}", flush=True)
    return good


def mend(error: str, place: str) -> str:
    """What a failure asks for, where it can be told from its reason."""
    if any(word in error.lower() for word in ("content_filter", "content filter", "content_policy", "content policy")):
        return "; the server filters contents: turn that off, or have another server judge"
    hints = {
        "HTTP 401": f"is {place}.api_key_env right?",
        "HTTP 403": f"is {place}.api_key_env right?",
        "HTTP 404": f"is {place}.url right (of a chat endpoint it ends in /v1), and {place}.model?",
        "no answer within": f"raise {place}.timeout_s, or lower {place}.concurrency",
        "no answer: ": f"does the server run at {place}.url?",
    }
    if "max_completion_tokens" in error:
        return f"; set {place}.limit_name to max_completion_tokens"
    return "".join(f"; {hint}" for start, hint in hints.items() if error.startswith(start))


def check_part(reward: dict, place: str, requests, pictures):
    """Checks a reward that is no sum: whether the endpoint answers, with scores, and how fast. Returns (usable,
    Judged, or None where it is of no use to go on)."""
    part = settings.complete(reward, place)
    judge = settings.make_judge(reward, place)
    score = f"{place}: logprobs" if part["kind"] == "chat" else f"{place}: score"
    first = judge(requests[:1], pictures[:1])
    if first.missing and not first.first_error.startswith(UNUSABLE):
        return report(False, f"{place}: answers", first.first_error + mend(first.first_error, place)), None
    if first.missing:
        report(True, f"{place}: answers", f"{part['url']} does")
        why = first.first_error.removeprefix(UNUSABLE)
        return report(False, score, why + mend(why, place)), None

    alone = []
    for n in range(ONE_BY_ONE):
        begin = time.perf_counter()
        one = judge(requests[n : n + 1], pictures[n : n + 1])
        alone += [] if one.missing else [time.perf_counter() - begin]
    begin = time.perf_counter()
    judged = judge(requests, pictures)
    seconds = time.perf_counter() - begin

    count = len(requests)
    unusable = [error for error in judged.errors if error.startswith(UNUSABLE)]
    silent = [error for error in judged.errors if error and not error.startswith(UNUSABLE)]
    why = f"; the first that does not: {silent[0]}{mend(silent[0], place)}" if silent else ""
    usable = report(
        len(silent) <= MOST_MISSING * count,
        f"{place}: answers",
        f"{count - len(silent)} of {count} questions about pictures have an answer{why}",
    )
    why = unusable[0].removeprefix(UNUSABLE) if unusable else ""
    why = f"; the first without: {why}{mend(why, place)}" if why else ""
    usable &= report(
        len(unusable) <= MOST_MISSING * count,
        score,
        f"{count - len(silent) - len(unusable)} of {count - len(silent)} answers have one{why}",
    )
    if alone:
        median, late = np.quantile(alone, [0.5, 0.95])
        limit = part["timeout_s"] / 2 if part["url"] else np.inf  # a busy endpoint is slower than an idle one
        usable &= report(
            late <= limit,
            f"{place}: latency",
            f"median {median:.3g} s, p95 {late:.3g} s, of {len(alone)} pictures one by one"
            + (f"; more than half of {place}.timeout_s = {part['timeout_s']}: raise it" if late > limit else ""),
        )
    at = f" at concurrency {part['concurrency']}" if part["url"] else ""
    report(True, f"{place}: rate", f"{(count - judged.missing) / seconds:.3g} samples/s{at}")
    return usable, judged


def check_order(scores, what: str = "order") -> bool:
    """Checks that of pairs (right, wrong) f32[2 * N] most are in order; those with a missing score are left out."""
    right, wrong = np.asarray(scores, np.float64).reshape(-1, 2).T
    known = ~np.isnan(right - wrong)
    if not known.any():
        return report(False, what, "no pair of a right and a wrong picture has both its scores")
    right, wrong = right[known], wrong[known]
    share = (np.mean(right > wrong) + np.mean(right >= wrong)) / 2  # a tie is half a pair in order
    return report(
        share >= IN_ORDER,
        what,
        f"right pictures score {right.mean():.3f}, wrong ones {wrong.mean():.3f} on average; in {share:.0%} of "
        f"{len(right)} pairs the right one is above ({IN_ORDER:.0%} are needed)",
    )


def check(reward: dict, edits: bool = False) -> bool:
    """All checks of config.reward, as a judge of edits or of pictures of a prompt. Returns whether the reward is
    usable. Raises UserError before anything is asked, or where a plain function is no judge."""
    judge, weights = settings.make_judge(reward), settings.complete(reward)["weights"]
    requests, pictures = probes.edits() if edits else probes.drawings()
    parts = settings.leaves(reward)
    outcomes = [check_part(part, place, requests, pictures) for place, part in parts]
    if any(judged is None for _, judged in outcomes):
        return False
    if parts[0][0] == settings.PLACE:
        ((usable, whole),) = outcomes
    else:  # the sum is asked for anew, by the very judge that the training will have
        usable, whole = all(good for good, _ in outcomes), judge(requests, pictures)
    if edits:  # each score by the pairs that are wrong in it alone
        for name, half in ((FOLLOWING, slice(None, probes.PAIRS)), (PRESERVING, slice(probes.PAIRS, None))):
            if name in whole:
                usable &= check_order(whole[name][half], f"order of {name}")
    return check_order(combine(whole, of_task(weights, whole, edits))) and usable


def main(argv):
    config, _ = cli.parse_config(argv, __doc__, workdir=False)
    if "reward" not in config:
        raise UserError('the configuration has no config.reward: add config.reward = ConfigDict({"kind": "shapes"})')
    tasks, usable = {"edit": (True,), "both": (False, True)}.get(config.get("task", ""), (False,)), True
    for edits in tasks:
        if len(tasks) > 1:
            print("edits" if edits else "pictures of prompts", flush=True)
        usable &= check(config.reward, edits)
    print("usable" if usable else "not usable")
    if not usable:
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
