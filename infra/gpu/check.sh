#!/usr/bin/env bash
# The GPU check on a machine with PyTorch and a GPU but without this project's environment, `just` or a network.
# What its Python lacks is taken from .gpu/wheels, which `infra/gpu/prepare.sh` fills on another machine. It is
# unpacked beside, in .gpu_state, so that .gpu stays small enough to be carried after a trial here.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
if compgen -G ".gpu/wheels/*.whl" >/dev/null; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
        --target .gpu_state/site .gpu/wheels/*.whl
    export PYTHONPATH="$PWD/.gpu_state/site${PYTHONPATH:+:$PYTHONPATH}"
fi
if [ -f .gpu/commit ]; then
    NANOCHAT_COMMIT=$(cat .gpu/commit)
    export NANOCHAT_COMMIT
fi
exec "$python" infra/gpu/check.py "$@"
