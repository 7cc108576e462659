"""Gradient polish: a schedule's numbers moved downhill on the metric itself, on a worker.

losses           what an iteration lowers, and on which noise
gradient         a loss's gradient through a plan, in the moves of its table
differentiable   network and extractor as a gradient needs them, in the memory that there is
adam             the optimiser, with a way back from numbers that are not finite
polishing        all of it: a schedule in, a polished one out

The table whose numbers move is `s3search.solvers.trainable`; plans run in the loop of
`s3search.solvers.sample`, as everywhere.
"""
