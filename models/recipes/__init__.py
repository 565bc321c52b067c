"""Recipes: what is done to a network before it is exported, one file each."""
