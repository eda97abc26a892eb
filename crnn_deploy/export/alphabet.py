"""Which alphabet a checkpoint has, where its blank is, and what tells it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from crnn_deploy.errors import or_recipe
from crnn_deploy.export.checkpoints.checkpoint import Checkpoint
from crnn_deploy.export.fitting import recipes_with
from crnn_deploy.recipes.alphabets import AlphabetInvalid, check_alphabet
from crnn_deploy.recipes.recipe import RECIPES, Recipe
from crnn_deploy.recipes.settings import CheckpointSettings
from crnn_deploy.recipes.tables import Candidate, Classes, Ordered, fitted

__all__ = ["AlphabetTold", "alphabet_of"]

_BLANK_NAME = re.compile(r"(ctc_?)?blank(_?(idx|index|id|label|class|token_id))?", re.IGNORECASE)


@dataclass(frozen=True)
class AlphabetTold:
    """The characters of a network, and what tells them."""

    tokens: tuple[str, ...]  # in the order of the classes, the blank left out
    blank: int  # its class
    told: str  # in words
    assumed: bool = False  # whether nothing tells it
    owner: str = "the alphabet"  # what has so many characters, for messages


def alphabet_of(checkpoint: Checkpoint, recipe: Recipe, settings: CheckpointSettings) -> AlphabetTold:
    """The alphabet as the user gave it, as the checkpoint holds it, or as the recipe has it.

    Raises AlphabetInvalid where the checkpoint holds two that differ, or one that does not fit.
    """
    if settings.alphabet is not None:
        classes = _given(settings.alphabet, settings.alphabet_from, checkpoint, settings, settings.left_out)
        return _told(classes, settings.alphabet_from, recipe, settings)
    if (found := _inside(checkpoint, settings)) is not None:
        where, classes = found
        return _told(
            classes, f"the checkpoint's {where}", recipe, settings, _blank_beside(checkpoint, classes)
        )
    if recipe.alphabet is None:
        network = checkpoint.network
        count = "" if network is None else f"{network.classes - 1} "
        named = [] if network is None else recipes_with(network.family, network.classes)
        shown = " (crnn-deploy recipes shows where they are published)" if recipe.name in RECIPES else ""
        raise AlphabetInvalid(
            f"neither {checkpoint.path} nor the recipe {recipe.name} holds an alphabet; pass the {count}"
            f"characters it was trained on with --alphabet FILE{or_recipe(named)}{shown}"
        )
    # that of a recipe file is the user's own, unless the file has it from a recipe that is built in
    assumed = any(recipe.alphabet is known.alphabet for known in RECIPES.values())
    where = f"the recipe {recipe.name}'s{', assumed' if assumed else ''}"
    told = _told(_given(recipe.alphabet, where, checkpoint, settings), where, recipe, settings)
    return replace(told, assumed=assumed, owner=f"the recipe {recipe.name}")


def _given(
    alphabet: tuple[str, ...],
    where: str,
    checkpoint: Checkpoint,
    settings: CheckpointSettings,
    left_out: int | None = None,
) -> Classes:
    """What the user or a recipe gives; of as many tokens as the network has classes, one is the blank."""
    known = checkpoint.classes
    if len(alphabet) + 1 in known or len(alphabet) not in known:
        return Classes(alphabet, left_out, by_numbers=left_out in (0, len(alphabet)))
    found = fitted(Ordered(alphabet), len(alphabet), _blank_class(settings, len(alphabet) - 1))
    if isinstance(found, str):
        raise AlphabetInvalid(
            f"the alphabet ({where}) {found}; leave the blank out of it, or say with --blank which one it is"
        )
    return found


def _told(
    classes: Classes,
    told: str,
    recipe: Recipe,
    settings: CheckpointSettings,
    beside: tuple[str, int] | None = None,
) -> AlphabetTold:
    """A table with its blank: as the user says, as the checkpoint says, or as the recipe says.

    beside: a name in the checkpoint, and the class of the blank that it says
    """
    tokens = check_alphabet(classes.tokens, told)
    usual = recipe.blank_class(len(tokens))
    given = _blank_class(settings, len(tokens))
    if given is not None:
        blank = given
    elif beside is not None:
        name, blank = beside
        if not classes.by_numbers and classes.blank not in (None, blank):
            raise AlphabetInvalid(
                f"the alphabet ({told}) has the blank as class {classes.blank}, and the checkpoint's {name} "
                f"says class {blank}; say --blank first or --blank last"
            )
        told += f", its {name} the blank"
    else:
        blank = usual if classes.blank is None else classes.blank
        if classes.by_numbers and blank != usual:
            raise AlphabetInvalid(
                f"the alphabet ({told}) counts its characters from {1 if blank == 0 else 0}, so its blank "
                f"would be class {blank}, but the recipe {recipe.name} has it as class {usual}; "
                "say --blank first or --blank last"
            )
    if classes.written:
        told += f", where {classes.written!r} is the blank"
    return AlphabetTold(tokens, blank, told)


def _blank_beside(checkpoint: Checkpoint, classes: Classes) -> tuple[str, int] | None:
    """The class of the blank as settings in a checkpoint say it, and their name."""
    count = len(classes.tokens) + 1
    for name, value in checkpoint.saved.items():
        if _BLANK_NAME.fullmatch(name) and type(value) is int and -count <= value < count:
            return name, value % count
    return None


def _blank_class(settings: CheckpointSettings, characters: int) -> int | None:
    """The blank's class as the user gave it."""
    if settings.blank is None or isinstance(settings.blank, int):
        return settings.blank
    return 0 if settings.blank == "first" else characters


def _inside(checkpoint: Checkpoint, settings: CheckpointSettings) -> tuple[str, Classes] | None:
    """The table in a checkpoint that fits its network, and its name there."""
    fits: list[tuple[str, Classes]] = []
    wrong: list[str] = []
    for candidate in checkpoint.tables:
        found = _fit(candidate, checkpoint, settings)
        if isinstance(found, Classes):
            fits.append((candidate.where, found))
        elif candidate.sure:
            wrong.append(f"its {candidate.where} {found}")
    if not fits:
        if wrong:
            raise AlphabetInvalid(
                f"{checkpoint.path}: {wrong[0]}; pass the characters that it was trained with, in the order "
                "of its classes, with --alphabet FILE"
            )
        return None
    for where, classes in fits[1:]:
        if not _agree(classes, fits[0][1]):
            raise AlphabetInvalid(
                f"{checkpoint.path} holds two alphabets that differ, its {fits[0][0]} and its {where}; pass "
                "the right one with --alphabet FILE"
            )
    # of those that agree the one that says most surely where the blank is
    return max(fits, key=lambda fit: (fit[1].by_numbers, fit[1].blank is not None))


def _agree(one: Classes, other: Classes) -> bool:
    """Whether two tables have the same characters, and the blank in one place as far as they say.

    Numbers say where it is. A sign may stand at another end, as in meijieru's converter, which has its
    dictionary from 1 and a text with a hyphen at the end for the index -1.
    """
    return one.tokens == other.tokens and (
        None in (one.blank, other.blank)
        or one.blank == other.blank
        or (one.by_numbers, other.by_numbers) in ((True, False), (False, True))
    )


def _fit(candidate: Candidate, checkpoint: Checkpoint, settings: CheckpointSettings) -> Classes | str:
    """A table as the classes of the network, or why it is none."""
    table = candidate.table
    if isinstance(table, str):
        return table
    sizes = checkpoint.classes
    if len(sizes) > 1 and not candidate.named:
        return "has a name that may mean anything"
    if len(sizes) > 1:  # of a network that is not known any layer may be the last
        sizes = frozenset((len(table.tokens) + 1, len(table.tokens))) & sizes
    found: Classes | str = f"has {len(table.tokens)} characters, and no layer of the network puts out so many"
    for classes in sorted(sizes, reverse=True):
        found = fitted(table, classes, _blank_class(settings, classes - 1))
        if isinstance(found, Classes):
            break
    return found
