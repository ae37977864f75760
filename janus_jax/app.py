"""Serves a page to draw, edit, ask and judge on:

    pip install -e ".[app]"        # in the checkout
    python -m janus_jax.app --checkpoint shapes-rl

Pictures appear row by row as they are drawn, verdicts and reasons word by word. The page is at http://127.0.0.1:7860,
for this machine alone; docs/app.md says how to open it from another. Ctrl-C ends it.
"""

from janus_jax import cli, rules
from janus_jax.checkpoints import loading
from janus_jax.errors import UserError
from janus_jax.page.handlers import Handlers
from janus_jax.sampling import decode
from janus_jax.sampling.defaults import sampling_of

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def arguments(argv):
    """The flags."""
    parser = cli.Parser("app", __doc__)
    cli.add_model_flags(parser, checkpoint="shapes-rl", mesh=False)
    parser.add_argument("--port", type=int, default=7860, help="of the page")
    parser.add_argument("--host", default="127.0.0.1", help="who may open it: 127.0.0.1 = this machine alone")
    parser.add_argument("--seconds", type=float, default=300, help="a request is stopped after so many")
    args = parser.parse_args(argv)
    rules.check_flags(args)
    return args


def main(argv):
    args = arguments(argv)
    try:
        from janus_jax.page import layout
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] == "janus_jax":
            raise
        mend = 'in the checkout, pip install -e ".[app]"'
        raise UserError(f"the page needs gradio ({error.name} is missing): {mend}") from error
    sampling = sampling_of(args.checkpoint)
    model, params, processor = loading.load(args.checkpoint, args.dtype)
    params = decode.prepared(params)  # once, not for each request
    page = layout.build(Handlers(str(args.checkpoint), model, params, processor, sampling, args.seconds))
    address = layout.serve(page, args.host, args.port)
    print(f"{args.checkpoint}: open {address} (Ctrl-C ends it)", flush=True)
    if args.host not in LOOPBACK:
        print(f"whoever reaches {args.host} can use it: it has no password", flush=True)
    page.block_thread()


if __name__ == "__main__":
    cli.run(main)
