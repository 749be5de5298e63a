"""The built-in world: seeded documents and chat tasks from which a tiny model learns in minutes.

`documents` writes pretraining text, `files` the folder of tasks in the formats of the public benchmarks;
both are about the people and things of `world`, with the questions of `questions` and `exercises`. Everything
is drawn by `random.Random` from explicit seeds, so the same configuration gives the same bytes everywhere.
"""
