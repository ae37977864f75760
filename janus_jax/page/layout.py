"""The page: four tabs of gradio components over the handlers. Importing it imports gradio.

It works without a network: system fonts, no analytics, nothing from another host.
"""

import functools
import html
import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr

from janus_jax.errors import UserError
from janus_jax.page import limits, view
from janus_jax.page.handlers import Handlers
from janus_jax.shapes import scene
from janus_jax.shapes.world import SHIPPED

TITLE = "janus_jax"
SHAPES = ("shapes-sft", "shapes-rl")
WORLD = (
    f"This model knows a small world of coloured shapes: {', '.join(SHIPPED.shapes)}; {', '.join(SHIPPED.colors)}; "
    f"{' or '.join(SHIPPED.sizes)}; up to {scene.MAX_ITEMS} of them, and which is left, right, above or below."
)
EXAMPLES = [
    "two red circles",
    "three blue squares",
    "a photo of a black circle and a red square",
    "a cross above a square",
]
STYLE = """
.gradio-container { max-width: 960px !important; margin: 0 auto !important; }
footer { display: none !important; }
.status p { margin: 0; }
"""


def picture(label):
    """A field for a picture file, which the handler gets as it was sent: what cannot be opened, it says in a line."""
    field = gr.Image(label=label, type="filepath", image_mode=None, sources=["upload", "clipboard"], height=240)
    field.preprocess = lambda payload: None if payload is None else payload.path
    return field


def told(handler):
    """A handler whose UserError the page shows in its own words, for a while on top and for good in the status line."""

    @functools.wraps(handler)
    def wrapped(*values):
        try:
            yield from handler(*values)
        except UserError as error:
            line = html.escape(str(error), quote=False)
            yield line, gr.skip()
            raise gr.Error(line, print_exception=False) from None

    return wrapped


def _numbers(sampling, rounds: int):
    """The fields that say how to draw, in the order that the handlers take them."""

    def slider(name, value, step, label, info):
        rule = limits.NUMBERS[name]
        return gr.Slider(rule.least, rule.most, value, step=step, label=label, info=info)

    with gr.Accordion("How to draw", open=False):
        return [
            slider("samples", 1, 1, "Samples", "pictures drawn beside each other"),
            slider("rounds", rounds, 1, "Rounds", "pictures per sample at most; another follows each No"),
            slider("guidance", sampling.cfg_weight, 0.1, "Guidance", "how much the text counts; 1 = none"),
            slider("temperature", sampling.temperature, 0.05, "Temperature", "lower is less varied"),
            gr.Number(0, label="Seed", info="the same seed draws the same pictures", precision=0, minimum=0),
        ]


def _answer():
    """Where a handler's status and HTML go."""
    return [gr.HTML(elem_classes="status", html_template='<p role="status">${value}</p>', value=""), gr.HTML("")]


def _button(label, handler, inputs, enter=()):
    """A button, and what it fills; enter: text fields whose Enter key does the same."""
    with gr.Row():
        start = gr.Button(label, variant="primary")
        stop = gr.Button("Stop", variant="secondary", scale=0, min_width=120)
    outputs = _answer()
    event = gr.on(
        [start.click, *(field.submit for field in enter)],
        told(handler),
        inputs,
        outputs,
        api_name=handler.__name__,
        concurrency_limit=1,
        concurrency_id="model",  # one request at a time, of all tabs together
        show_progress="hidden",
        trigger_mode="once",
    )
    stop.click(lambda: "Stopped.", None, outputs[0], cancels=[event], queue=False, api_visibility="private")


def _words(label, placeholder):
    return gr.Textbox(label=label, placeholder=placeholder, max_length=limits.CHARACTERS, max_lines=4)


def build(handlers: Handlers) -> gr.Blocks:
    """The page of a model."""
    name, small = handlers.checkpoint, handlers.checkpoint in SHAPES
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.Markdown(
            f"# {TITLE}\n\nA model that draws, looks at what it drew, says whether it matches, and draws again.\n\n"
            f"Checkpoint: `{name}`. {WORLD if small else ''}"
        )
        with gr.Tab("Draw"):
            prompt = _words("Prompt", "two red circles" if small else "what to draw")
            if small:
                gr.Examples(EXAMPLES, prompt, label="Examples")
            _button("Draw", handlers.draw, [prompt, *_numbers(handlers.sampling, 3)], [prompt])
        with gr.Tab("Edit"):
            gr.Markdown(
                "Pictures of that world." if small else "Edits mean something where the checkpoint was trained on them."
            )
            source = picture("Picture (its middle square is edited)")
            instruction = _words("Instruction", "make the circle blue" if small else "what to change")
            _button("Edit", handlers.edit, [source, instruction, *_numbers(handlers.sampling, 1)], [instruction])
        with gr.Tab("Ask"):
            seen, question = picture("Picture (or none)"), _words("Question", "How many circles are there?")
            _button("Ask", handlers.ask, [seen, question], [question])
        with gr.Tab("Judge"):
            judged, asked = picture("Picture"), _words("Prompt", "what the picture should show")
            with gr.Accordion("It is an edit", open=False):
                before = picture("The picture before the edit; the prompt is then the instruction")
            _button("Judge", handlers.judge, [judged, asked, before], [asked])
    page.queue(max_size=limits.WAITING, default_concurrency_limit=1, api_open=False)
    return page


def serve(page: gr.Blocks, host: str, port: int) -> str:
    """Serves the page in a thread until page.close(): its address. Raises UserError where the port cannot be had."""
    theme = gr.themes.Base(
        neutral_hue="stone", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            theme=theme,
            css=STYLE + view.STYLE,
            quiet=True,
            share=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            enable_monitoring=False,
            footer_links=[],
            max_file_size=limits.FILE_BYTES,
            show_error=True,
            inbrowser=False,
        )
    except OSError as error:
        raise UserError(f"cannot serve on {host}:{port}: is it in use? Choose another --port") from error
    return address
