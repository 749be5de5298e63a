"""`python -m flows.plan.confirm_code` records that code changes give the same results."""

from __future__ import annotations

import json

from flows.plan.code_digest import LOCK, current

if __name__ == "__main__":
    LOCK.write_text(json.dumps(current(), indent=2) + "\n", encoding="utf-8")
