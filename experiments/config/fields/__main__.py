"""Prints the page of all fields: python -m experiments.config.fields > docs/fields.md"""

from experiments.config.fields import page

print(page.page(), end="")
