"""Compares recipes of training under the same seeds: what they reach, and how soon they reach a target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from trimtab.core.codec import dumps
from trimtab.core.errors import BadInput
from trimtab.core.files import new_folder, owned, write_text
from trimtab.core.values import Run
from trimtab.meters.scores import lower_is_better
from trimtab.reports import figures
from trimtab.reports.figures.curves import curves
from trimtab.training.arms import Recipes, side_by_side
from trimtab.training.group import torchrun_started
from trimtab.training.recipe import read_recipe
from trimtab.workbench.opening import open_model
from trimtab.workbench.task import given_task
from trimtab.workbench.train import UNTAUGHT, Heard, Training, train

COMPARED = "compared.json"


def compare_recipes(
    asked: Training, option: str, seeds: int, target: float | None = None, heard: Callable[[str], Heard] | None = None
) -> Recipes:
    """Train a network by every value of an option, each under the same seeds, and compare what comes of them.

    Each training has a folder of its own below the output, so that what was killed goes on where it was. The seed
    draws the order of the items, the augmentation, and the first weights where the factory draws them.

    Args:
        asked: the training; its recipe is what all have in common, seeds count from its own.
        option: "name=value,value…", such as "optimizer=sgd,adam,adam-then-sgd".
        seeds: how many times each; with fewer than two there are no intervals.
        target: the metric that is to be reached.
        heard: from the name of a training to what hears of its epochs.
    """
    name, values = read_option(option)
    if seeds < 1:
        raise BadInput(f"--seeds {seeds} makes no sense; give at least 1, and 3 or more for intervals")
    if torchrun_started()[1] > 1:
        raise BadInput("--compare starts its processes itself: leave torchrun out and give --processes")
    recipes = {value: read_recipe([f"{name}={value}"], asked.recipe) for value in values}
    if asked.teachers and not any(recipe.taught for recipe in recipes.values()):
        raise BadInput(UNTAUGHT)
    work = asked.output / "work"
    with new_folder(asked.output, COMPARED), owned(asked.output):
        model = open_model(asked.model, work / "model", asked.model_request).model
        task = given_task(asked.data, model, work / "data", replace(asked.data_request, max_drop=None))
        found: dict[str, tuple[Run, ...]] = {}
        for value, recipe in recipes.items():
            runs = []
            for seed in range(recipe.seed, recipe.seed + seeds):
                label = f"{name}={value}, seed {seed}"
                one = replace(
                    asked,
                    data=task,
                    output=asked.output / f"{value}-{seed}",
                    recipe=replace(recipe, seed=seed),
                    teachers=asked.teachers if recipe.taught else (),
                )
                runs.append(train(one, heard(label)) if heard else train(one))
            found[value] = tuple(runs)
        compared = side_by_side(found, task.metric, target, lower_is_better=lower_is_better(task.metric))
        write_text(asked.output / COMPARED, dumps(compared, indent=1))
        figures.save({"curves": curves(found, task.metric)}, asked.output)
    return compared


def read_option(text: str) -> tuple[str, list[str]]:
    """Return the name and the values of "name=value,value…"."""
    name, _, rest = text.partition("=")
    values = [value.strip() for value in rest.split(",") if value.strip()]
    if not name or len(values) < 2 or len(set(values)) < len(values):
        raise BadInput(f'--compare {text!r} is not understood; type it like "optimizer=sgd,adam" (two values or more)')
    return name.strip(), values
