"""The parts of a user's own that docs/components.md shows."""

import re

from tests.support.programs import ROOT

CODE = "\n\n".join(
    re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "components.md").read_text(), re.S)
)
