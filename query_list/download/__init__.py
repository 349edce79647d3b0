"""`wit queries download`: a Wikipedia's dump, page views and WordNet, onto this machine.

    DIR/dump/           the dump, in one file or in parts
    DIR/views/          page views, a file a day or an hour
    DIR/wordnet/        WordNet 3.0
    DIR/inputs.json     the wiki and date, and of each source what was asked for, its files
                        (state.File; null in sha256: not there yet) and which are missing
    DIR/*/NAME.part     what came of a file so far; NAME.part.json: of which version of it

A stopped download goes on where it was; a finished one looks at the sizes and asks nobody.
"""

from query_list.download.command import HELP, add_arguments, run

__all__ = ["HELP", "add_arguments", "run"]
