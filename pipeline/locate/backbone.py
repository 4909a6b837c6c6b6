"""The backbone of a trained localiser, with the weights and the preprocessing that it was trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cache.errors import RecipeMismatch
from cache.recipe import Recipe
from stages.errors import InputError, WeightsError
from stages.extract.config import IMPORTED
from stages.models.backbones.backbone import Backbone, load_backbone
from stages.models.backbones.card import describe_backbone, recorded_preprocess
from stages.models.backbones.weights import PRETRAINED, RANDOM


def load_backbone_of(
    recipe: Recipe, folder: str | Path, *, weights: str | Path | None, device: str
) -> Backbone:
    """Return the backbone of a localiser's recipe; `folder` names the localiser in errors.

    Raises
    ------
    InputError
        If the localiser was trained on imported features.
    WeightsError
        If the weights are not available, or are not those that it was trained on.
    RecipeMismatch
        If this version preprocesses images differently.
    """
    if recipe.backbone == IMPORTED:
        raise InputError(
            f"{folder} was trained on features imported as {recipe.weights}: locating photos needs the "
            "model that made them. Make features of the photos with that model, import them with "
            f"`pipeline import features --split queries --name {recipe.weights}`, and run `pipeline eval`"
        )
    setting = _setting_of(recipe, weights, folder)
    _require_recipe(recipe, setting, folder)
    backbone = load_backbone(
        recipe.backbone,
        weights=setting,
        image_size=recipe.image_size,
        outputs=tuple(recipe.outputs),
        device=device,
        precision=recipe.precision,
    )
    backbone.preprocess_as(recipe.preprocessing)
    return backbone


def _setting_of(recipe: Recipe, weights: str | Path | None, folder: str | Path) -> str:
    if weights is not None:
        return str(weights)
    if recipe.weights in (PRETRAINED, RANDOM):
        return recipe.weights
    raise WeightsError(
        f"{folder} was trained on features of the weights file {recipe.weights!r}: "
        "name that file with --weights FILE"
    )


def _require_recipe(recipe: Recipe, setting: str, folder: str | Path) -> None:
    """Reject other weights or another preprocessing before the backbone is loaded."""
    card = describe_backbone(
        recipe.backbone,
        weights=setting,
        image_size=recipe.image_size,
        outputs=tuple(recipe.outputs),
    )
    card = replace(card, preprocess=recorded_preprocess(card, recipe.preprocessing))
    if card.weights_id != recipe.weights_id:
        raise WeightsError(
            f"{setting!r} are not the weights that {folder} was trained on "
            f"(SHA-256 {card.weights_id[:12]}... instead of {recipe.weights_id[:12]}..., "
            f"setting {recipe.weights!r}): "
            "name the right file with --weights FILE"
        )
    # Here Pillow decodes the photos, whichever decoder read the training images.
    preprocessing = {**recipe.preprocessing, **card.preprocessing}
    current = replace(recipe, preprocessing=preprocessing, outputs=card.outputs)
    differences = current.differences(recipe)
    if differences:
        raise RecipeMismatch(
            f"{folder} was trained with another version of placecache ({'; '.join(differences)}): "
            "run `pipeline extract` and `pipeline train-heads` again"
        )
