"""`wit explain`: what became of one picture, pair, query or host of a run, step by step.

`files` reads a run's files, `lookup` finds rows by hash, `draws` says how queries order and draw
them, `way` where a wave took them; `pairs`, `queries`, `hosts` and `crawl` make a Story of it each,
and `words` prints it. Nothing here writes.
"""
