"""Which variant of a kernel's configuration a GPU has shown to be the fastest; written, not edited.

`python -m kernels.bench --choose` times the variants of `kernels.configs` on a GPU and rewrites this file. A
row that is not here uses its configuration in `configs.TABLE`.
"""

from __future__ import annotations

# From (compute capability, kernel, class of shapes, bits) to the variant's name.
CHOSEN: dict[tuple[int, str, str, int], str] = {}
