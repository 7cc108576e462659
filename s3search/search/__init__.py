"""Pure search: questions out, answers in; randomness is a generator made from the seed.

`s3search.search.conversation` says what a search is, `s3search.search.algorithms` has them.
"""
