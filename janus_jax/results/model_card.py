"""A model's card, README.md of its repository on the hub: what it is, how to load it, recipe, numbers, licence."""

import json
from pathlib import Path

from janus_jax.errors import UserError

PRIVATE = ("reward.url", "reward.api_key_env")  # and of absolute paths the name alone: a card is for everybody
LOADING = {
    "own": """```python
import janus_jax

model, params, processor = janus_jax.load("{repository}")
sampling = janus_jax.sampling_of("{repository}")
trajectories = janus_jax.introspect(model, params, processor, ["{prompt}"], sampling=sampling)
```""",
    "hf": """```python
from transformers import JanusForConditionalGeneration, JanusProcessor

model = JanusForConditionalGeneration.from_pretrained("{repository}")
processor = JanusProcessor.from_pretrained("{repository}")
```

or `janus_jax.load("{repository}")`.""",
    "original": """```python
import janus_jax

model, params, processor = janus_jax.load("{repository}")
```

The files are in the original Janus format (`multi_modality`), so the original code loads them, too.""",
}
CARD = """---
license: {license}
library_name: janus_jax
pipeline_tag: text-to-image
tags: [janus, jax, introspection]
---

# {name}

One multimodal model draws a picture from text, looks at it, says whether it matches, and draws it again if it does not
(the method of [Janus-Pro-R1](https://arxiv.org/abs/2506.01480), implemented in janus_jax). {size}

## Load

{loading}

## Recipe

{recipe}

## Numbers

{numbers}

## Licence

{license}.{terms}
"""


def card(repository: str, format: str, license: str, parameters: int, source: str, settings: dict, results) -> str:
    """The card as Markdown. format: own, hf or original; source: what was converted; settings: of the training, by
    name, where there was one; results: paths of files that `evaluate` wrote. Raises UserError for one that is none."""
    tiny = parameters < 1e8
    return CARD.format(
        name=repository.rpartition("/")[2],
        license=license,
        size=f"It has {parameters / 1e6:,.1f}M parameters.",
        loading=LOADING[format].format(repository=repository, prompt="three green crosses" if tiny else "a red cup"),
        recipe=_recipe(source, settings),
        numbers="\n\n".join(map(_numbers, results)) or "None were given.",
        terms="" if tiny else " Weights that derive from Janus-Pro are under the DeepSeek Model License besides.",
    )


def _recipe(source, settings) -> str:
    if not settings:
        return f"Converted from `{source}` with `python -m janus_jax.convert`."
    shown = {name: value for name, value in sorted(settings.items()) if not name.startswith(PRIVATE)}
    rows = "\n".join(f"| `{name}` | `{_cell(value)}` |" for name, value in shown.items())
    return f"Trained with janus_jax by these settings:\n\n| setting | |\n|---|---|\n{rows}"


def _cell(value) -> str:
    if isinstance(value, str) and Path(value).is_absolute():
        value = Path(value).name
    return " ".join(str(value).replace("|", "\\|").replace("`", "'").split())


def _numbers(path) -> str:
    """The figures of one evaluation, with the command that measures them."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        overall, errors = found["overall"], found["stderr"]
        rows = [(name, overall[name], errors[name]) for name in ("first", "final")]
        more = [(name, found[name], errors.get(name)) for name in ("repair_rate", "spoil_rate", "judge_agreement")]
        command = (
            f"python -m janus_jax.evaluate --checkpoint CHECKPOINT --suite {found['suite']} --rounds {found['rounds']} "
            f"--samples {found['samples']} --out eval.json"
        )
        lines = [f"| {name} | {_number(value)} | {_number(error)} |" for name, value, error in rows + more]
        head = f"Suite `{found['suite']}`, {found['n']} trajectories:\n\n| | | ± |\n|---|---|---|"
        return "\n".join([head, *lines, "", f"    {command}"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--results {path} is no file of janus_jax.evaluate ({error}): give its --out") from error


def _number(value) -> str:
    return "" if value is None else f"{value:.3f}"
