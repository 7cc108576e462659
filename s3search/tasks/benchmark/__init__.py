"""The benchmark of searches: what each finds against the network calls that it spends.

A benchmark is a folder of ordinary studies, one database per number of network calls, and every
row of its table can be made again from them.  `plan` says which studies, `running` runs those
that are not done, `results` reads them, `tables` and `pictures` show them.
"""
