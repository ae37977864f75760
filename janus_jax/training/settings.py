"""Each setting of a training's configuration: its type and range, in one table; and what goes only with what.

Checked before anything is loaded. config.reward has its own table, rewards/settings.py, and config.model the model's.
"""

from janus_jax.errors import UserError
from janus_jax.rules import NOT_NEGATIVE, POSITIVE, SHARE, Rule, check_patterns, check_settings, whole
from janus_jax.shapes import text
from janus_jax.shapes.world import SHIPPED, WORLDS
from janus_jax.training import writers

TEXT, FLAG, COUNT = Rule(str), Rule(bool), whole(1)
DTYPE = Rule(choices=("float32", "bfloat16"))

# What several stages have.
SHARED = {
    "seed": whole(0, 2**32 - 1),
    "log_every": COUNT,
    "save_every": COUNT,
    "warmup": whole(0),
    "weight_decay": NOT_NEGATIVE,
    "final_learning_rate": NOT_NEGATIVE,
    "temperature": POSITIVE,
    "cfg_weight": NOT_NEGATIVE,
    "mesh": Rule(int, -1, 2**20, count=3),
    "frozen": Rule(str, count=-1),
    "micro_batches": COUNT,
    "moments": DTYPE,
    "gradients": DTYPE,
    "learning_rate": NOT_NEGATIVE,
    "steps": COUNT,
    "init": TEXT,
    "writers": Rule(str, count=-1),
}


def _of(*shared: str, **own: Rule) -> dict[str, Rule]:
    return {**{name: SHARED[name] for name in shared}, **own}


VQ = _of(
    *("seed", "final_learning_rate", "warmup", "weight_decay", "temperature", "log_every", "save_every", "writers"),
    world=Rule(choices=tuple(WORLDS)),
    pictures=COUNT,
    batch=COUNT,
    steps=whole(0, count=3),
    learning_rates=Rule(least=0, count=3),
    commitment=NOT_NEGATIVE,
    entropy=Rule(count=3),
)
SFT = _of(
    *("seed", "init", "mesh", "frozen", "micro_batches", "cfg_weight", "temperature", "steps", "moments", "gradients"),
    *("learning_rate", "final_learning_rate", "warmup", "weight_decay", "log_every", "save_every", "writers"),
    preset=TEXT,
    vq=TEXT,
    cache=TEXT,
    edits=TEXT,
    draws=TEXT,
    shares=Rule(least=0, count=-1),
    verdict_share=SHARE,
    drop_prompt=SHARE,
    judged_right=SHARE,
    mended=SHARE,
    scrambled=SHARE,
    categories=Rule(choices=text.CATEGORIES, count=-1),
    decay_steps=whole(0),
    optimizer=Rule(choices=("adamw", "muon")),
)
RL = _of(
    *("seed", "init", "mesh", "frozen", "micro_batches", "cfg_weight", "temperature", "steps", "moments", "gradients"),
    *("learning_rate", "final_learning_rate", "warmup", "weight_decay", "save_every", "writers"),
    matmul_precision=TEXT,
    most_missing=SHARE,
    pause_seconds=NOT_NEGATIVE,
    credit=TEXT,
    estimator=TEXT,
    value_weight=NOT_NEGATIVE,
    gamma=SHARE,
    gae_lambda=SHARE,
    redraws=whole(0, 1000),
    ahead=FLAG,
    released=FLAG,
    min_group=whole(2),
    rounds=whole(1, 1000),
    group=whole(1, 2**20),
    prompts_per_step=whole(1, 2**20),
    rollout_rows=whole(0),
    prompts=TEXT,
    free_prompts=SHARE,
    task=Rule(choices=("draw", "edit", "both")),
    edit_share=SHARE,
    edit_prompts=TEXT,
    edit_images=TEXT,
    failures=Rule(str, count=-1),
    prompt_tokens=whole(1, 2**20),
    image_top_k=whole(0),
    text_top_k=whole(0),
    max_reason_tokens=whole(1, 2**20),
    updates=COUNT,
    beta=NOT_NEGATIVE,
    refresh_every=whole(0),
    clip_low=SHARE,
    clip_high=NOT_NEGATIVE,
    max_logp_gap=Rule(),
    gap_every=COUNT,
    schedule=Rule(choices=("cosine", "linear")),
    turn_learning_rate=NOT_NEGATIVE,
    turn_step=whole(0),
    clip_norm=POSITIVE,
    retention_every=whole(0),
    retention_prompts=COUNT,
    retention_pairs=TEXT,
    retention_questions=whole(0),
    storyboard_every=COUNT,
)
# Of janus_jax.compile, for drawing alone.
DRAWING = _of(
    *("mesh", "cfg_weight"),
    preset=TEXT,
    batch=COUNT,
    rounds=whole(1, 1000),
    prompt_tokens=whole(1, 2**20),
    max_reason_tokens=whole(1, 2**20),
)

# What a configuration that was written before there was such a setting means.
UNSAID = {
    **{"moments": "float32", "gradients": "float32", "rollout_rows": 0, "edits": "", "draws": "", "gap_every": 1},
    **{"task": "draw", "edit_share": 0.5, "edit_prompts": "", "edit_images": "", "retention_questions": 0},
    "writers": ("tensorboard",),
    **{"failures": (), "categories": (), "mended": 0.0, "scrambled": 0.0, "world": SHIPPED.name},
}


def _check(config, table) -> None:
    with config.unlocked():
        for name, value in UNSAID.items():
            if name in table and name not in config:
                config[name] = value
    check_settings(config, table)
    if "frozen" in table:
        check_patterns(config, "frozen")
    if "writers" in table:
        for name in config.writers:
            writers.found(name)


def check_vq(config) -> None:
    """Raises UserError for settings that no picture tokenizer can be trained with."""
    _check(config, VQ)


def check_drawing(config) -> None:
    """The same for drawing alone."""
    _check(config, DRAWING)


def check_sft(config) -> None:
    """The same for stage 1."""
    _check(config, SFT)
    if len(config.shares) not in (4, 5):
        raise UserError(
            f"config.shares is {config.shares!r}: set --config.shares to those of draw, judge, redraw and describe, "
            "and a fifth of edit where there is such a task"
        )
    if not sum(config.shares) > 0:
        raise UserError("all of config.shares are 0: give a task a share")
    tasks = ("draw", "judge", "redraw", "describe", "answer", "edit", "judge_edit")
    kinds = (Rule(choices=tasks), whole(0, 1000), whole(1))
    example = "((120, (('draw', 0, 8), ('judge', 1, 8))),): (length, ((task, earlier rounds, rows), ...))"
    try:
        fits = len(config.buckets) > 0
        for length, rows in config.buckets:
            fits = fits and COUNT.allows(length) and len(rows) > 0
            fits = fits and all(rule.allows(x) for kind in rows for rule, x in zip(kinds, kind, strict=True))
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise UserError(f"config.buckets is {config.buckets!r}: set it to something like {example}")
    asked = {task for _, rows in config.buckets for task, *_ in rows}
    if "edit" in asked and len(config.shares) == 4:
        raise UserError("config.buckets asks for edits, which have no share: give config.shares a fifth number")
    if config.draws and "draw" not in asked:
        raise UserError("config.draws is for `draw` rows, of which config.buckets has none: set --config.draws=")
    if {"edit", "judge_edit"} & asked and not config.edits:
        raise UserError("config.buckets asks for edits: set --config.edits to a cache of theirs")


def check_rl(config, credits, estimators) -> None:
    """The same for stage 2. credits: rl's Credit objects by name; estimators: its Estimators."""
    _check(config, RL)
    if config.credit not in credits:
        raise UserError(f"credit {config.credit!r} is none of {', '.join(credits)}: set --config.credit")
    if config.estimator not in estimators:
        raise UserError(f"estimator {config.estimator!r} is none of {', '.join(estimators)}: set --config.estimator")
    rounds = credits[config.credit].rounds
    if rounds not in (None, config.rounds):
        raise UserError(
            f"{config.credit} is about {rounds} rounds: set --config.rounds={rounds}, or --config.credit=trajectory"
        )
    if config.released and config.task != "draw":
        raise UserError("the released layout is of drawings: set --config.task=draw, or --config.released=False")
    if config.released and rounds is None:
        raise UserError("the released layout goes with released credit: set --config.credit=released/own_prompt")
    by_token = estimators[config.estimator].value_head
    if by_token and (config.credit != "trajectory" or config.redraws):
        raise UserError(
            f"{config.estimator} credits every token by itself: set --config.credit=trajectory and --config.redraws=0"
        )
    if config.ahead and config.released:
        raise UserError(
            "the released layout knows no old probabilities, which a rollout that is drawn ahead needs: set "
            "--config.ahead=False or --config.released=False"
        )
    if config.ahead and config.redraws:
        raise UserError("a rollout that is drawn ahead cannot know which groups to replace: set --config.redraws=0")
    if config.warmup > config.turn_step or not config.turn_learning_rate > 0:
        raise UserError(
            "the learning rate rises for config.warmup steps and is config.turn_learning_rate, above 0, at "
            "config.turn_step: set --config.turn_step to --config.warmup at least"
        )
    if config.min_group > config.group and not by_token:
        raise UserError(
            f"{config.estimator} compares the members of a group: set --config.group to at least 2, and "
            "--config.min_group to that at most"
        )


def use_slice(config, name: str, slices: dict, usual: dict) -> None:
    """Sets what a slice of `slices` asks for beside `usual`; of several, "v5e-16@2", each has its share of the data
    axis, and so of the rows."""
    one, _, count = name.partition("@")
    settings, count = usual | slices.get(one, {}), int(count or 1)
    data, *others = settings["mesh"]
    settings["mesh"] = (data * count, *others)
    settings["micro_batches"] = max(settings["micro_batches"] // count, 1)
    if "rollout_rows" in settings:
        settings["rollout_rows"] *= count
    for key, value in settings.items():
        setattr(config, key, value)
