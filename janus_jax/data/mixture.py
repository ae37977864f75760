"""Stage 1's data: tasks from groups of labelled pictures, as rows, in buckets of fixed shape.

    draw    [prompt] (right picture)                                     trained: its codes
    judge   [prompt] ((seen) think No, reason, next){0-2} (seen) think   trained: Yes|No, reason, EOS
    redraw  [prompt] ((wrong) think No, reason, next){1-2} (right)       trained: the last picture's codes

the same of edits, which begin with a source picture,

    edit        [before] (source) [instruction] ((wrong) think No, reason, next){0-2} (right)   trained: its codes
    judge_edit  [before] (source, seen) [instruction] ((seen) think No, reason, next){0-2} (seen) think
                                                                     trained: Yes|No, reason, EOS

(the original knows edits without earlier rounds alone, and does not judge them), and, for a base model that has yet to
learn to see, or one that is not to forget it,

    describe  [user:] (seen) [question, assistant:]              trained: what is in the picture, EOS
    answer    the same with a picture of the embedded world made for the row, and one of its questions ("how many
              circles are there?"), none that evaluation holds out; in the loss one group with describe

A step's batch is a tuple of Batches, one per bucket, so that short sequences are not padded to the longest. A row is a
pure function of (seed, step, bucket, place in the bucket): a data position is one number, the step, and how many
processes share the rows of a step changes none of them.
"""

import dataclasses

import grain
import numpy as np
from PIL import Image

from janus_jax.data.cache import Groups
from janus_jax.errors import UserError
from janus_jax.sequences import tokens
from janus_jax.sequences.batch import DESCRIBE, DRAW, EDIT, REASON, REDRAW, VERDICT, Batch
from janus_jax.sequences.grammar import Grammar
from janus_jax.sequences.request import Request
from janus_jax.sequences.row import Row, collate
from janus_jax.shapes import questions
from janus_jax.shapes.render import render
from janus_jax.shapes.text import QUESTION
from janus_jax.shapes.verify import RIGHT
from janus_jax.shapes.world import SHIPPED, World

PAINTED = {"draw": DRAW, "redraw": REDRAW, "edit": EDIT}  # tasks whose last picture is trained, with their loss groups
JUDGED = ("judge", "judge_edit")
# What a request says of a source: that there is one. A row is given its codes or its pixels.
SOURCE = Image.new("RGB", (1, 1))


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of row: the task, the number of earlier rounds, and how many such rows a step has."""

    task: str
    earlier: int
    rows: int


@dataclasses.dataclass(frozen=True)
class Bucket:
    """Rows of some kinds, padded to one length."""

    length: int
    kinds: tuple[Kind, ...]

    @property
    def rows(self) -> int:
        return sum(kind.rows for kind in self.kinds)

    def targets(self, words: int, codes: int) -> dict[str, int]:
        """Targets and pictures per row, as collate takes them; words: most of a reason, codes: of a picture."""
        judged = [kind for kind in self.kinds if kind.task not in PAINTED]
        drawn = any(kind.task in PAINTED for kind in self.kinds)
        return {
            "text_targets": words if judged else 0,
            "code_targets": codes if drawn else 0,
            "pictures": max((kind.earlier + 1 + (kind.task == "judge_edit") for kind in judged), default=0),
        }


def scrambled(rng, codes, used, edit: bool):
    """codes i32[K,I] of K pictures, each painted after those before it, with random codes, of `used`, in a random share
    of

    - the places where all of them have one code: in all alike, another one at each place;
    - edit, the first being its source: what has moved, codes that occur equally often in all pictures at the other
      places: in all alike, one for each code;
    - edit: what else is to change, in the source alone.

    The ground, the most frequent code of the first picture, is neither moved nor changed."""
    stays, share = (codes == codes[0]).all(0), rng.random()
    chosen = stays & (rng.random(codes.shape[1]) < share)
    fresh = np.where(chosen, rng.choice(used, codes.shape[1]), codes)
    values, often = np.unique(codes[0], return_counts=True)
    for value in np.unique(codes[0, ~stays]) if edit else ():
        if value != values[often.argmax()] and rng.random() < share:
            places = ~stays & (codes == value)
            moved = len(np.unique(places.sum(1))) == 1
            places[1:] &= moved
            fresh[places] = rng.choice(used)
    return fresh


class RowMaker:
    """Makes rows from groups, by the grammar. drop: the probability that a prompt, or an instruction, becomes PAD where
    a picture is trained (guidance needs it); judged_right: the least score of pictures that are judged Yes (those to be
    drawn have at least verify.RIGHT); mended: how often a redrawn picture is the last wrong one with its faults mended,
    where the cache has that, and not any right one; world: what `answer` asks about; draws: what `draw` learns from, in
    place of `groups`; scrambled: how often, where a picture is painted after one that it keeps part of (edits, and
    mended pictures), some of the codes become random ones, see `scrambled`: what has never been seen has to be copied,
    moved and changed, too."""

    def __init__(
        self,
        groups: Groups,
        grammar: Grammar,
        drop: float = 0.1,
        judged_right: float = RIGHT,
        mended: float = 0.0,
        world: World = SHIPPED,
        draws: Groups | None = None,
        scrambled: float = 0.0,
    ):
        self.draws = None if draws is None else RowMaker(draws, grammar, drop, judged_right, world=world)
        self.scrambled, self.used = scrambled, np.unique(groups.codes)
        self.groups, self.grammar, self.drop, self.mended, self.world = groups, grammar, drop, mended, world
        self.special = grammar.special
        # P: positives from RIGHT, negatives under 0.5
        self.right, self.wrong, self.judged = (
            [groups.pictures(p)[which[groups.pictures(p)]] for p in range(len(groups))]
            for which in (groups.score >= RIGHT, groups.score < 0.5, groups.score >= judged_right)
        )
        texts = np.unique(np.concatenate([groups.reasons, groups.captions]))
        # the most words that a row trains, with EOS
        self.longest = 1 + max(len(self._words(text)) for text in texts)
        everything = np.arange(len(groups))
        has_right, has_wrong, has_judged = (
            np.array([len(pictures) > 0 for pictures in each], bool) for each in (self.right, self.wrong, self.judged)
        )
        edits = groups.source >= 0
        # which prompts a task can use, by whether there are earlier rounds, which are wrong pictures
        self.usable = {
            ("draw", False): everything[has_right & ~edits],
            ("judge", False): everything[(has_judged | has_wrong) & ~edits],
            ("judge", True): everything[has_wrong & ~edits],
            ("redraw", True): everything[has_right & has_wrong & ~edits],
            ("edit", False): everything[has_right & edits],
            ("edit", True): everything[has_right & has_wrong & edits],
            ("judge_edit", False): everything[(has_judged | has_wrong) & edits],
            ("judge_edit", True): everything[has_wrong & edits],
            ("describe", False): everything[np.diff(groups.start) > 0],
            ("answer", False): everything,
        }

    def make(self, rng, task: str, earlier: int) -> Row:
        """A random row of a task with so many earlier rounds. Raises UserError where no prompt has the pictures."""
        if task == "draw" and self.draws is not None:
            return self.draws.make(rng, task, earlier)
        usable = self.usable.get((task, earlier > 0), ())
        if not len(usable):
            edits = " (all of them are edits)" if len(self.groups) and (self.groups.source >= 0).all() else ""
            raise UserError(
                f"no prompt of the cache{edits} has pictures for {task} with {earlier} earlier rounds: change "
                "config.buckets, or the cache"
            )
        if task == "answer":
            return self._answer(rng)
        p = int(rng.choice(usable))
        if task == "describe":
            return self._describe(int(rng.choice(self.groups.pictures(p))))
        row, wrong = Row(), self.wrong[p]
        dropped = task in PAINTED and rng.random() < self.drop
        past = rng.choice(wrong, earlier, replace=len(wrong) < earlier)
        if task in JUDGED:
            self._ask(row, p, self.groups.pixels)
            self._judge(rng, row, past, p)
            return row
        target = self._right(rng, p, past[-1] if earlier else -1)
        codes = self._scrambled(rng, p, past, target)
        self._ask(row, p, codes, dropped)
        for picture in past:
            self.grammar.draw(row, codes[picture])
            self.grammar.redraw(row, self._reason(picture))
        self.grammar.draw(row, codes[target], PAINTED[task])
        return row

    def _scrambled(self, rng, p, past, target):
        """{picture: codes i32[I]} of a painted row: source, earlier pictures, target; `scrambled` now and then, unless
        the target keeps nothing on purpose."""
        source = int(self.groups.source[p])
        shown = [*([] if source < 0 else [source]), *(int(picture) for picture in past), int(target)]
        codes = self.groups.codes[shown]
        kept = source >= 0 or (len(past) and self.groups.mended[past[-1]] == target)
        if self.scrambled and kept and rng.random() < self.scrambled:
            codes = scrambled(rng, codes, self.used, edit=source >= 0)
        return dict(zip(shown, codes, strict=True))

    def _right(self, rng, p, last):
        """A picture to draw for a prompt after the wrong one `last`, if there is one."""
        if self.mended and last >= 0 and self.groups.mended[last] >= 0 and rng.random() < self.mended:
            return self.groups.mended[last]
        return rng.choice(self.right[p])

    def _ask(self, row, p, pictures, dropped=False):
        """Appends what is asked: a prompt, or a source picture, of `pictures` (codes or pixels, by number), and an
        instruction."""
        prompt, source = str(self.groups.prompts[p]), int(self.groups.source[p])
        if source < 0:
            self.grammar.ask(row, Request(prompt), dropped=dropped)
        else:
            self.grammar.ask(row, Request(prompt, SOURCE), pictures[source], dropped)

    def _judge(self, rng, row, past, p):
        """Appends earlier pictures with their reasons, then one to be judged, right or wrong as often."""
        for picture in past:
            self.grammar.look(row, self.groups.pixels[picture])
            self.grammar.say(row, reason := self._reason(picture))
            self.grammar.look_again(row, reason)
        sides = [side for side in (self.judged[p], self.wrong[p]) if len(side)]
        picture = rng.choice(sides[0] if rng.random() < 0.5 else sides[-1])
        self.grammar.look(row, self.groups.pixels[picture])
        reason = self._reason(picture)
        yes_no = np.isin(reason, (self.special.yes, self.special.no))
        self.grammar.say(row, reason, np.where(yes_no, VERDICT, REASON))

    def _describe(self, picture):
        return self._told(
            self.groups.pixels[picture], QUESTION, self.groups.captions[picture], tokens.MAX_REASON_TOKENS
        )

    def _answer(self, rng):
        kind = str(rng.choice(questions.KINDS))
        question, scene = questions.draw(rng, kind, held_out=False, world=self.world)
        pixels = render(scene, self.groups.pixels.shape[1], rng, self.world)
        return self._told(pixels, question.text, question.answer, questions.LONGEST_ANSWER)

    def _told(self, pixels, question, answer, most):
        row = Row()
        self.grammar.answer(row, [pixels], question, system="")
        row.add_text([*self._words(answer)[: most - 1], self.special.eos], DESCRIBE)
        return row

    def _words(self, text):
        return self.grammar.tokenizer.encode(str(text), bos=False, literal=True)

    def _reason(self, picture):
        return np.array([*self._words(self.groups.reasons[picture])[: tokens.MAX_REASON_TOKENS - 1], self.special.eos])


class Steps:
    """A grain random-access source of steps: item i is the tuple of Batches of step i. mine: of each bucket the places
    of the rows to make, those of this process; None makes all."""

    def __init__(self, maker: RowMaker, buckets, seed: int, count: int, mine=None):
        self.maker, self.buckets, self.seed, self.count = maker, tuple(buckets), seed, count
        self.mine = [range(bucket.rows) for bucket in self.buckets] if mine is None else mine

    def __len__(self):
        return self.count

    def __getitem__(self, step) -> tuple[Batch, ...]:
        batches = []
        for b, bucket in enumerate(self.buckets):
            # in any order: micro-batches, and processes, shall hold every kind
            kinds = [kind for kind in bucket.kinds for _ in range(kind.rows)]
            where = np.random.default_rng([self.seed, int(step), b]).permutation(len(kinds))
            rows = []
            for place in self.mine[b]:
                rng = np.random.default_rng([self.seed, int(step), b, 1 + int(place)])
                rows.append(self._fitting(rng, kinds[where[place]], bucket.length))
            answers = questions.LONGEST_ANSWER if any(kind.task == "answer" for kind in bucket.kinds) else 0
            words = max(min(self.maker.longest, tokens.MAX_REASON_TOKENS), answers)
            shape = bucket.targets(words, self.maker.groups.codes.shape[1])
            shape |= {"picture_shape": self.maker.groups.pixels.shape[1:], "levels": True}
            batches.append(collate(rows, bucket.length, self.maker.special.pad, **shape))
        return tuple(batches)

    def _fitting(self, rng, kind, length):
        for _ in range(100):
            row = self.maker.make(rng, kind.task, kind.earlier)
            if len(row) <= length:
                return row
        raise UserError(
            f"no {kind.task} row with {kind.earlier} earlier rounds fits a bucket of {length}: the last of 100 tried "
            f"takes {len(row)} positions; lengthen the bucket in config.buckets"
        )


def steps(maker: RowMaker, buckets, seed: int, count: int, mine=None):
    """A grain dataset of `count` steps; mine: see Steps."""
    source = Steps(maker, buckets, seed, count, mine)
    return grain.MapDataset.source(source).to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4))


def blank(buckets, codes: int, side: int) -> tuple[Batch, ...]:
    """A step's batches with nothing in them, in the shapes of the longest reasons; codes: of a picture, side: pixels
    along one side of a picture that is seen."""
    batches = []
    for bucket in buckets:
        rows = [Row() for _ in range(bucket.rows)]
        rows[0].add_seen(np.zeros((side, side, 3), np.uint8), 1)
        shape = bucket.targets(tokens.MAX_REASON_TOKENS, codes)
        batches.append(collate(rows, bucket.length, 0, levels=True, **{**shape, "pictures": max(shape["pictures"], 1)}))
        if not shape["pictures"]:
            batches[-1] = batches[-1]._replace(pixels=None)
    return tuple(batches)
