"""Draws a benchmark's pictures in the tree that its official scorer reads:

    python -m janus_jax.export_benchmark --suite geneval --prompts evaluation_metadata.jsonl \\
        --checkpoint janus-7b --dtype bfloat16 --out runs/geneval

The prompts are files of the benchmark's own, fetched by you; scorers, detectors and judges are not part of this package
(docs/benchmarks.md has each one's command). OUT/reproduction says how the pictures were drawn, and keeps the model's
verdicts. Stopped, the same command goes on with what is missing, and ends with the same bytes. Several processes
(JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID) draw a share each, into one folder that all see.

--rounds 3 exports the picture that the model settles on; --first-out DIR, at no further cost, also the first ones.
"""

from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from janus_jax import cli
from janus_jax.checkpoints import loading
from janus_jax.errors import UserError
from janus_jax.layouts import card
from janus_jax.layouts.export import chunks, export, slots
from janus_jax.layouts.table import SUITES, Suite
from janus_jax.layouts.tree import BESIDE, Tree
from janus_jax.parallel import agree, hosts
from janus_jax.sampling import flags
from janus_jax.sampling.density import Sampling
from janus_jax.sampling.introspect import rollouts
from janus_jax.sequences import tokens


def arguments(argv):
    """The flags."""
    parser = cli.Parser("export_benchmark", __doc__)
    parser.add_argument("--suite", required=True, choices=tuple(SUITES), help="the benchmark")
    parser.add_argument(
        "--prompts", required=True, nargs="+", type=Path, metavar="FILE", help="its prompts, one file or several"
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="of the pictures to edit (default: beside FILE)")
    cli.add_model_flags(parser)
    parser.add_argument("--rounds", type=int, default=3, help="pictures per trajectory at most")
    parser.add_argument("--out", required=True, type=Path, help="the tree; what it holds already is not drawn again")
    parser.add_argument("--first-out", type=Path, help="a second tree, of the first pictures (default: none)")
    flags.add_drawing(parser)
    args = parser.parse_args(argv)
    if args.images and not SUITES[args.suite].edits:
        raise UserError(f"{args.suite} has no pictures to edit: leave --images out")
    if args.first_out and args.first_out.resolve() == args.out.resolve():
        raise UserError("--first-out is the folder of --out: choose another one")
    return args


def settings_of(args, sampling: Sampling, suite: Suite, items, model) -> dict:
    """What determines the pictures, and so stands on the card."""
    around_source = tokens.edit_prompt("{prompt}")
    sources = {"sources sha256": card.digest([item.source for item in items])} if suite.edits else {}
    return {
        "suite": args.suite,
        "prompts": [path.name for path in args.prompts],
        "prompts sha256": card.digest(args.prompts),
        **sources,
        "checkpoint": str(args.checkpoint),
        "checkpoint sha256": loading.digest(args.checkpoint),
        "dtype": args.dtype,
        "mesh": args.mesh or "one device",
        "rounds": args.rounds,
        "pictures per prompt": suite.samples,
        "side of a drawn picture": model.cfg.vq.image_size,
        "seed": args.seed,
        "template": "SOURCE".join(around_source) if suite.edits else tokens.generation_prompt("{prompt}"),
        **sampling.determining,
        "batch": args.batch,
        **card.versions(),
    }


def main(argv):
    args = arguments(argv)
    sampling, suite = flags.drawing(args), SUITES[args.suite]
    items = suite.items(args.prompts, args.images)
    trees = {"final": Tree(args.out)} | ({"first": Tree(args.first_out)} if args.first_out else {})
    for tree, flag in zip(trees.values(), ("--out", "--first-out"), strict=False):
        cli.writable(tree.out / BESIDE / "card.json", flag)
    hosts.start(ConfigDict({name: str(value) for name, value in vars(args).items()} | {"items": str(items)}))
    if args.mesh and jax.process_count() > 1:
        raise UserError("each process draws pictures of its own on one device: leave --mesh out, or start one process")
    with flags.loaded(args) as loaded:
        drawn(args, sampling, suite, items, trees, *loaded)


def drawn(args, sampling: Sampling, suite: Suite, items, trees, model, params, processor) -> None:
    """Draws what this process has to draw of the trees, and ends with all that is beside the pictures."""
    width = slots(model, processor, items)

    def begin():
        settings = settings_of(args, sampling, suite, items, model)
        for pick, tree in trees.items():
            tree.begin({"picture": pick, **settings})

    agree.first(begin)

    def draw(work):
        more = {"batch": args.batch, "prompt_tokens": width, "on_codes": bar.codes}
        for part in rollouts(model, params, processor, work, args.rounds, sampling, args.seed, **more):
            yield from part.trajectories(processor)

    parts = chunks(items, suite.samples, args.batch)
    mine = range(jax.process_index(), len(parts), jax.process_count())
    total = sum(len(parts[number]) for number in mine) * suite.samples
    with cli.keeping(), cli.Bar(total, 0, "drawing") as bar:
        for count in export(suite, parts, trees, draw, mine):
            bar.update(count)
    agree.gathered(np.zeros(1))  # the others have drawn theirs
    if agree.is_first():
        for tree in trees.values():
            tree.finish(suite.index(items))
            print(f"{tree.out} is what {args.suite}'s scorer reads: docs/benchmarks.md has its command")


if __name__ == "__main__":
    cli.run(main, hosts.leave)
