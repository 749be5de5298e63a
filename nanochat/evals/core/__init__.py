"""The CORE benchmark (DCLM)."""
