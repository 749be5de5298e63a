"""How good a model is: bits per byte, CORE, chat tasks."""
