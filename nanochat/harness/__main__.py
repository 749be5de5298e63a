"""`python -m nanochat.harness …`: the command line of lm-evaluation-harness, with `--model nanochat`."""

from __future__ import annotations

_MISSING = "lm-evaluation-harness is not installed\nhint: uv pip install 'lm-eval>=0.4.13,<0.4.14'"


def _run() -> None:
    try:
        from nanochat.harness.adapter import main
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "lm_eval":
            raise
        raise SystemExit(_MISSING) from None
    main()


if __name__ == "__main__":
    _run()
