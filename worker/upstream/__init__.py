"""Names of transformers and PEFT that their maintainers may change in any release.

Each module has one idea of theirs, and is the only place that imports its names. `changes.py` turns
a name that is missing into an error at start, and `versions.py` compares what is installed with the
versions that Lorikeet was tested with.
"""
