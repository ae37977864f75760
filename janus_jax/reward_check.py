"""Says whether the judge of an experiment will do, before any accelerator is rented:

    python -m janus_jax.reward_check --config configs/X.py [--config.reward.url=http://HOST:8000/v1 ...]

Draws right and wrong pictures of the embedded world, has them scored as config.reward says, and prints one line per
check: does the endpoint answer, do its answers hold a score (of a chat endpoint: the logprobs of yes and no), how long
does it take, do right pictures score above wrong ones. A weighted reward is checked part by part, and its sum for the
order. Exit status 0 if usable, 1 if not. Needs no accelerator and loads no model.
"""

import sys
import time

import numpy as np
from PIL import Image

from janus_jax import cli
from janus_jax.errors import UserError
from janus_jax.rewards import settings
from janus_jax.rewards.endpoint import UNUSABLE
from janus_jax.shapes import text
from janus_jax.shapes.render import render
from janus_jax.shapes.scene import compose, near_miss
from janus_jax.shapes.verify import Reading, matches

SIDE = 256  # pixels: enough for any judge's eye
PAIRS = 24  # of a right and a wrong picture for the same prompt, four per category
ONE_BY_ONE = 20  # pictures timed alone
MOST_MISSING = 0.1  # share of rewards: a healthy endpoint loses next to none
# Of the pairs, how many must be in order; a judge that guesses is under it in 99 of 100 checks (24 fair coins)
IN_ORDER = 0.75


def pairs(seed: int = 0):
    """(prompts, pictures) of PAIRS pairs, a right picture at the even places and a wrong one after it."""
    rng = np.random.default_rng(seed)
    prompts, pictures = [], []
    while len(prompts) < 2 * PAIRS:
        prompt = text.train_prompt(rng, text.CATEGORIES[len(prompts) // 2 % len(text.CATEGORIES)])
        ask = text.parse(prompt)
        right, wrong = compose(rng, ask), near_miss(rng, ask)
        if matches(ask, Reading(wrong.items)):  # an uncoloured prompt forgives a change of colour, for one
            continue
        prompts += [prompt] * 2
        pictures += [Image.fromarray(render(scene, SIDE, rng)) for scene in (right, wrong)]
    return prompts, pictures


def report(good: bool, check: str, line: str) -> bool:
    """Prints the outcome of one check, and returns it."""
    print(f"{'ok  ' if good else 'FAIL'}  {check}: {line}", flush=True)
    return good


def mend(error: str, place: str) -> str:
    """What a failure asks for, where it can be told from its reason."""
    hints = {
        "HTTP 401": f"is {place}.api_key_env right?",
        "HTTP 403": f"is {place}.api_key_env right?",
        "HTTP 404": f"is {place}.url right (of a chat endpoint it ends in /v1), and {place}.model?",
        "no answer within": f"raise {place}.timeout_s, or lower {place}.concurrency",
        "no answer: ": f"does the server run at {place}.url?",
    }
    return "".join(f"; {hint}" for start, hint in hints.items() if error.startswith(start))


def check_part(reward: dict, place: str, prompts, pictures):
    """Checks a reward that is no sum: whether the endpoint answers, with scores, and how fast. Returns (usable,
    Judged, or None where it is of no use to go on)."""
    part = settings.complete(reward, place)
    judge = settings.make_judge(reward, place)
    score = f"{place}: logprobs" if part["kind"] == "chat" else f"{place}: score"
    first = judge(prompts[:1], pictures[:1])
    if first.missing and not first.first_error.startswith(UNUSABLE):
        return report(False, f"{place}: answers", first.first_error + mend(first.first_error, place)), None
    if first.missing:
        report(True, f"{place}: answers", f"{part['url']} does")
        return report(False, score, first.first_error.removeprefix(UNUSABLE)), None

    alone = []
    for n in range(ONE_BY_ONE):
        begin = time.perf_counter()
        one = judge(prompts[n : n + 1], pictures[n : n + 1])
        alone += [] if one.missing else [time.perf_counter() - begin]
    begin = time.perf_counter()
    judged = judge(prompts, pictures)
    seconds = time.perf_counter() - begin

    count = len(prompts)
    unusable = [error for error in judged.errors if error.startswith(UNUSABLE)]
    silent = [error for error in judged.errors if error and not error.startswith(UNUSABLE)]
    why = f"; the first that does not: {silent[0]}{mend(silent[0], place)}" if silent else ""
    usable = report(
        len(silent) <= MOST_MISSING * count,
        f"{place}: answers",
        f"{count - len(silent)} of {count} questions about pictures have an answer{why}",
    )
    why = f"; the first without: {unusable[0].removeprefix(UNUSABLE)}" if unusable else ""
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


def check_order(scores) -> bool:
    """Checks that of pairs (right, wrong) f32[2 * PAIRS] most are in order; those with a missing score are left out."""
    right, wrong = np.asarray(scores, np.float64).reshape(-1, 2).T
    known = ~np.isnan(right - wrong)
    if not known.any():
        return report(False, "order", "no pair of a right and a wrong picture has both its scores")
    right, wrong = right[known], wrong[known]
    share = (np.mean(right > wrong) + np.mean(right >= wrong)) / 2  # a tie is half a pair in order
    return report(
        share >= IN_ORDER,
        "order",
        f"right pictures score {right.mean():.3f}, wrong ones {wrong.mean():.3f} on average; in {share:.0%} of "
        f"{len(right)} pairs the right one is above ({IN_ORDER:.0%} are needed)",
    )


def check(reward: dict) -> bool:
    """All checks of config.reward. Returns whether the reward is usable. Raises UserError before anything is asked."""
    judge = settings.make_judge(reward)
    prompts, pictures = pairs()
    parts = settings.leaves(reward)
    outcomes = [check_part(part, place, prompts, pictures) for place, part in parts]
    if any(judged is None for _, judged in outcomes):
        return False
    if parts[0][0] == settings.PLACE:
        ((usable, whole),) = outcomes
    else:  # the sum is asked for anew, by the very judge that the training will have
        usable, whole = all(good for good, _ in outcomes), judge(prompts, pictures)
    return check_order(whole.scores) and usable


def main(argv):
    config, _ = cli.parse_config(argv, __doc__, workdir=False)
    if "reward" not in config:
        raise UserError('the configuration has no config.reward: add config.reward = ConfigDict({"kind": "shapes"})')
    usable = check(config.reward)
    print("usable" if usable else "not usable")
    if not usable:
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
