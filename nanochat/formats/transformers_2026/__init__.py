"""What an exported folder of architecture 2026 carries as code, for `trust_remote_code` in transformers.

The two files are the code of that folder, and import torch and transformers alone; this project never runs
them (transformers is a package of its readers), but checks and tests them like its own.
"""
