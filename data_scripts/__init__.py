"""Scripts that bring data: one a data set, one for SAM's checkpoints, one for synthetic images.

Run them from the repository's root, for example ``python -m data_scripts.kvasir --root data``.
Modules whose name starts with an underscore are the helpers that the scripts share.
"""
