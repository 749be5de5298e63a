#!/usr/bin/env bash
# Puts into .gpu what a GPU machine without a network needs beside the checkout: wheels, training tokens with
# the losses that a CPU gets on them, and the name of the commit. Copy the checkout with .gpu there.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p .gpu
bash infra/gpu/fetch_wheels.sh
uv run python -m infra.gpu.prepare "$@"
git describe --always --dirty >.gpu/commit
du -sh .gpu
