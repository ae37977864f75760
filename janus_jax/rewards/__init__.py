"""Judges: how well pictures match their prompts. One file per judge.

A judge is a function (prompts: list[str], images: list[PIL.Image]) -> Judged, N of each. `Judged.scores` f32[N] are
R_QA in [0, 1] (of a weighted sum: in the range that its weights span), NaN where the reward is *missing*: a call that
failed is never a 0, which would be learnt from. A judge raises UserError for what the user has to mend, and for
nothing that an endpoint does. `settings.make_judge(config.reward)` builds the one an experiment asks for.
"""
