"""Turns a released label file and its pictures into codes, for stage 1:

    python -m janus_jax.cache_labels --checkpoint DIR --labels labels.jsonl --images FOLDER --out runs/labels.npz

or, as well, the released metadata of edits:

    python -m janus_jax.cache_labels --checkpoint DIR --edits metadata.jsonl --images FOLDER --out runs/edits.npz

or captioned pictures, {"image": "0.png", "prompt": "a red cup"} a line, from which only drawing can be learnt:

    python -m janus_jax.cache_labels --checkpoint DIR --captions captions.jsonl --out runs/captioned.npz

The painter's side of a picture is encoded once; what the judge sees is read from the picture's file again while
training, so the files must stay where they are. Bad records and pictures are left out, up to a share of all, and said
in one line at the end. What was encoded is kept as it comes: a command that was interrupted goes on where it ended.
Beside the cache, a picture of its name (runs/labels.npz.png) shows some of the pictures above what their codes decode
to: the best that a model with this tokenizer can draw of them.
"""

import collections
import hashlib
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from janus_jax import cli, rules
from janus_jax.checkpoints import loading
from janus_jax.data import cache, caption_file, edit_file, label_file, records
from janus_jax.data.unfinished import Unfinished
from janus_jax.errors import UserError
from janus_jax.models.codec import decode, encode
from janus_jax.models.vq import VQ
from janus_jax.sequences import images, tokens


def build(model, params, processor, prompts, batch: int, tally, out, progress=None, edits=False) -> cache.Groups:
    """Groups of label_file.Labelled prompts. params: of them "vq" is enough; batch: pictures encoded together; tally:
    of the label file, counts prompts that are too long and pictures that cannot be read, which are left out; out: the
    cache's file, beside which codes are kept until it is complete; progress: called with the number of finished
    pictures; edits: prompts are instructions, their first pictures the sources, and none is used without all its
    pictures. Raises UserError where too much is bad."""
    prompts = [prompt for prompt in prompts if _fits(processor, prompt, tally, edits)]
    pictures = [(prompt, picture) for prompt in prompts for picture in prompt.pictures]
    vq = VQ(model.cfg.vq, model.cfg.dtype)
    encoder = hashlib.sha256()
    for leaf in jax.tree.leaves(params["vq"]):
        encoder.update(np.asarray(leaf).tobytes())
    paths = [picture.path for _, picture in pictures]
    with Unfinished(out, encoder.hexdigest()[:16], paths, model.cfg.vq.tokens) as kept:
        todo, bad = kept.todo(), set()
        if progress:
            progress(len(pictures) - len(todo))
        for begin in range(0, len(todo), batch):
            part, pixels = todo[begin : begin + batch], []
            for number in part:
                prompt, picture = pictures[number]
                try:
                    pixels.append(processor.for_generation(images.read(picture.path)))
                except UserError as error:
                    if not (edits and number ^ 1 in bad):  # an edit is one record: two pictures, side by side
                        tally.good -= 1  # as which its line was counted
                        tally.refuse(prompt.line, records.BadRecord(str(error), "a picture cannot be read"))
                    bad.add(number)
            if pixels:
                several = np.stack(pixels + pixels[-1:] * (batch - len(pixels)))  # one size for all batches
                codes = np.asarray(encode(vq, params["vq"], several))[: len(pixels)]
                kept.keep([number for number in part if number not in bad], codes)
            if progress:
                progress(len(part))
            tally.check()
        if edits:
            bad |= {number ^ 1 for number in bad}
        whole = [number for number in range(len(pictures)) if number not in bad]
        if not whole:
            raise UserError(f"{tally.path}: no picture is left ({tally.summary()}): there is nothing to learn from")
        codes = kept.codes(whole)
    counts = collections.Counter(id(pictures[number][0]) for number in whole)
    prompts = [prompt for prompt in prompts if counts[id(prompt)]]
    pictures = [pictures[number][1] for number in whole]
    start = np.cumsum([0] + [counts[id(prompt)] for prompt in prompts])
    return cache.Groups(
        prompts=[prompt.prompt for prompt in prompts],
        start=start,
        source=start[:-1] if edits else None,
        codes=codes,
        pixels=cache.PictureFiles([str(picture.path.resolve()) for picture in pictures], processor.understanding_size),
        score=np.array([picture.score for picture in pictures], np.float32),
        reasons=[picture.reason for picture in pictures],
        captions=[""] * len(pictures),
    )


def _fits(processor, prompt, tally, edits) -> bool:
    try:
        if edits:
            tokens.edit_ids(processor.tokenizer, prompt.prompt, tokens.MAX_INSTRUCTION_TOKENS)
        else:
            tokens.prompt_ids(processor.tokenizer, prompt.prompt, tokens.MAX_PROMPT_TOKENS)
    except UserError as error:
        records_of_it = 1 if edits else len(prompt.pictures)
        tally.good -= records_of_it
        for _ in range(records_of_it):
            tally.refuse(prompt.line, records.BadRecord(str(error), "a prompt is too long"))
        return False
    return True


def sheet(model, params, processor, groups, count: int = 8) -> Image.Image:
    """Up to `count` pictures of the groups, spread over them, above what their codes decode to."""
    some = np.unique(np.linspace(0, len(groups.codes) - 1, count).astype(int))
    paths = [groups.pixels.paths[n] for n in some]
    above = np.stack([processor.for_generation(images.read(path)) for path in paths])
    below = decode(VQ(model.cfg.vq, model.cfg.dtype), params["vq"], groups.codes[some])
    rows = [np.concatenate(images.to_uint8(pictures), axis=1) for pictures in (above, below)]
    return Image.fromarray(np.concatenate(rows))


def _summary(groups, args) -> str:
    if args.edits:
        return f"{len(groups)} edits"
    if args.captions:
        return f"{len(groups)} prompts, {len(groups.score)} captioned pictures"
    right = (groups.score >= label_file.RIGHT).mean()
    return f"{len(groups)} prompts, {len(groups.score)} pictures, {right:.3f} of them labelled right"


def main(argv):
    parser = cli.Parser("cache_labels", __doc__)
    parser.add_argument("--checkpoint", required=True, help="whose picture tokenizer encodes: a folder or shipped name")
    read_from = parser.add_mutually_exclusive_group(required=True)
    read_from.add_argument("--labels", type=Path, metavar="FILE.jsonl", help="labelled pictures of prompts")
    read_from.add_argument("--edits", type=Path, metavar="FILE.jsonl", help="pictures before and after an edit")
    read_from.add_argument("--captions", type=Path, metavar="FILE.jsonl", help="pictures with a prompt each")
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="what paths are relative to (default: the file's own folder)"
    )
    parser.add_argument("--out", required=True, type=Path, help="the cache to write, a .npz file")
    parser.add_argument("--batch", type=int, default=16, help="pictures at a time")
    records.add_flags(parser)
    args = parser.parse_args(argv)
    rules.check_flags(args)
    shown = args.out.with_name(args.out.name + ".png")
    cli.writable(args.out)
    cli.writable(shown)
    edits = args.edits is not None
    reader = edit_file if edits else caption_file if args.captions else label_file
    tally = records.tally_of(args, args.edits or args.captions or args.labels)
    prompts = reader.read(tally.path, args.images or Path(tally.path).parent, tally, args.allow_outside)
    model, params, processor = loading.load(args.checkpoint, part="vq")
    with cli.Bar(sum(len(prompt.pictures) for prompt in prompts), 0, "encoding") as bar:
        groups = build(model, params, processor, prompts, args.batch, tally, args.out, bar.update, edits)
    tally.close()
    cache.save(args.out, groups)
    Unfinished.forget(args.out)
    picture = sheet(model, params, processor, groups)
    try:
        picture.save(shown)
    except OSError as error:
        raise UserError(f"the cache is written, but not {shown}: {error.strerror}") from error
    print(f"{_summary(groups, args)}; what their codes decode to: {shown}")


if __name__ == "__main__":
    cli.run(main)
