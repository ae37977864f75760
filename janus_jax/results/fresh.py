"""What introspection is measured against, at as many pictures: fresh samples of the same prompt, of which the model
keeps the first that it says Yes to, or the one that it finds likeliest to be right."""

AGAIN = ("redraw", "fresh", "best")  # evaluate --again: introspection itself, and these two


def trajectories(singles: list[dict], samples: int, again: str) -> list[dict]:
    """Outcomes of trajectories made from outcomes of single pictures (evaluate.outcomes_of with one round), in the same
    form. Sample n of a prompt has the pictures of its samples n, n + samples, n + 2 samples ...

    again "fresh": those up to the first Yes, which is the final one, else the last; "best": all, the final one is that
    with the highest P(yes), of equals the first. Raises ValueError where a prompt's pictures do not divide by samples.
    """
    by_prompt: dict[str, dict[int, dict]] = {}
    for one in singles:
        by_prompt.setdefault(one["prompt"], {})[one["sample"]] = one
    result = []
    for of_prompt in by_prompt.values():
        if len(of_prompt) % samples:
            raise ValueError(f"{len(of_prompt)} pictures of a prompt do not divide into {samples} samples")
        for sample in range(samples):
            pictures = [of_prompt[number] for number in range(sample, len(of_prompt), samples)]
            result.append(_joined(pictures, again))
    return result


def _joined(pictures, again):
    """One trajectory of single pictures."""
    if again == "best":
        final = max(range(len(pictures)), key=lambda n: pictures[n]["p_yes"][0])
    else:
        said_yes = (n for n, one in enumerate(pictures) if one["verdicts"][0])
        final = next(said_yes, len(pictures) - 1)
        pictures = pictures[: final + 1]
    lists = [name for name, value in pictures[0].items() if isinstance(value, list)]
    return pictures[0] | {name: [one[name][0] for one in pictures] for name in lists} | {"final": final}
