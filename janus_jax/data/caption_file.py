"""Captioned pictures, to learn to draw from: a JSON object per line, {"image": "0.png", "prompt": "a red cup"}.

As label_file's labelled pictures: each is a right one of its prompt. There are no wrong ones, so that nothing is learnt
of judging.
"""

from pathlib import Path

from janus_jax.data import records
from janus_jax.data.label_file import Labelled, Picture
from janus_jax.errors import UserError


def read(path, folder, tally: records.Tally | None = None, allow_outside: bool = False) -> list[Labelled]:
    """A prompt with its pictures for each prompt of the file, in order; `image` is relative to `folder`, and inside it
    unless outside is allowed. tally: counts bad lines. Raises UserError where too many are bad, or none is good."""
    tally, pictures, begun = tally or records.Tally(path), {}, {}
    for number, line in records.lines(path, tally):
        try:
            entry = records.json_object(line)
            prompt = records.text_in(entry, "prompt")
            image = records.path_in(entry, "image", Path(folder), allow_outside)
        except UserError as error:
            tally.refuse(number, error)
            continue
        tally.good += 1
        begun.setdefault(prompt, number)
        pictures.setdefault(prompt, []).append(Picture(image, 1.0, "Yes."))
    tally.check()
    if not pictures:
        raise UserError(f'{path} has no captioned picture: a line is {{"image": FILE, "prompt": TEXT}}')
    return [Labelled(begun[prompt], prompt, tuple(several)) for prompt, several in pictures.items()]
