"""Prints the page of all fields: python -m experiments.config.fields > docs/fields.md"""

from experiments.config.fields import page

if __name__ == "__main__":
    print(page.page(), end="")
