"""All benchmarks: ``python -m tests.benchmarks`` (`make bench`)."""

from tests.benchmarks import (
    bench_compile,
    bench_digits,
    bench_pools,
    bench_predictor,
    bench_proxies,
    bench_sampling,
)

for title, main in (
    ("sampling", bench_sampling.main),
    ("compiling", lambda: bench_compile.main(1000)),
    ("pools", bench_pools.main),
    ("predictors", bench_predictor.main),
    ("the digits model", bench_digits.main),
    ("proxies", bench_proxies.main),
):
    print(f"== {title}", flush=True)
    main()
