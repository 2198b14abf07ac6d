"""Datasets that are generated: each recipe has a file here, and a command `stochastok make-…`."""

from stochastok_cli.data.recipes.addition import ADDITION
from stochastok_cli.data.recipes.base import register_recipe
from stochastok_cli.data.recipes.cute import CUTE
from stochastok_cli.data.recipes.langgame import LANGGAME

for recipe in (LANGGAME, ADDITION, CUTE):
    register_recipe(recipe)
