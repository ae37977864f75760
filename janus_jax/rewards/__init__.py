"""Judges: how well pictures are what was asked for. One file per judge.

A judge is a function (requests: list[Request], pictures: list[PIL.Image]) -> Judged, N of each: named scores f32[N],
"match" of pictures of a prompt, "following" and "preserving" of edits, or "whole", in [0, 1] unless weights span
another range; NaN where one is *missing*. A judge raises UserError for what the user has to mend, and for nothing that
an endpoint does. `settings.make_judge(config.reward)` builds the one an experiment asks for, `judge.as_judge` one of a
plain function; `judge.combine` makes the one reward of its scores."""
