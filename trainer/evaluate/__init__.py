"""Evaluation as the paper did it: zero-shot classification and retrieval, over any number of ranks.

`wit eval` (command.py) and the training loop call the same functions: `zero_shot.zero_shot` and
`retrieval.retrieval`, on the sets that `sets.open_set` opens.
"""
