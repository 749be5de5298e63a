"""The resolved packages fit together: with a wrong web framework release the server does not even import."""

from __future__ import annotations

import subprocess
import sys


def test_the_prefect_server_can_be_imported():
    done = subprocess.run(
        [sys.executable, "-c", "import prefect.server.api.server; print('imported')"],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "imported", done.stderr
