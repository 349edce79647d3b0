"""The query list: which words, phrases and names a text is searched for."""
