# Every command of the project. `just` lists them.

default:
    @just --list

# format, lint, types and the quick tests
check: format lint types
    uv run pytest tests/unit tests/property -m "not slow"

format:
    uv run ruff format .

lint:
    uv run ruff check .

types:
    uv run mypy

# everything that CI runs
test:
    uv run pytest

# kernels and nanochat with the oldest versions that pyproject.toml allows, in an environment of its own
oldest python="3.12":
    uv venv --quiet --clear --python {{python}} .venv-oldest || uv venv --quiet --clear --python 3.11 .venv-oldest
    uv pip install --quiet --python .venv-oldest --only-binary :all: --resolution lowest-direct \
        -r pyproject.toml --group dev
    .venv-oldest/bin/python -m pytest tests/unit/kernels tests/unit/nanochat tests/aot

# the pipeline on the built-in world
toy:
    uv run nanochat run toy

# record that code changes give the same result (else raise the stage's version first)
confirm-code:
    uv run python -m flows.plan.confirm_code

# write docs/recipes.md and docs/commands.md from the code
docs:
    uv run python -m flows.cli.document

# the checks of a commit, on all files
pre-commit:
    uvx pre-commit run --all-files

# ratios against named baselines, one table each
bench:
    for file in tests/benchmarks/bench_*.py; do uv run python "$file"; done

# pipelines under fault after fault until `--faults` (200) or `--minutes` (20); prints its `--seed`
campaign *options:
    uv run python -m tests.campaign {{options}}

# everything that a GPU can prove, in `--seconds` (480); `just gpu --device cpu --sizes tiny` is its dry run
gpu *options:
    uv run python infra/gpu/check.py {{options}}

# put into .gpu what `bash infra/gpu/check.sh` needs on a GPU machine without a network
gpu-prepare *options:
    bash infra/gpu/prepare.sh {{options}}
