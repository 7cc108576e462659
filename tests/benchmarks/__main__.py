"""All benchmarks: ``python -m tests.benchmarks`` (`make bench`)."""

from tests.benchmarks import (
    bench_compile,
    bench_digits,
    bench_pools,
    bench_predictor,
    bench_proxies,
    bench_report,
    bench_sampling,
    bench_scale,
)

for title, main in (
    ("sampling", bench_sampling.main),
    ("compiling", lambda: bench_compile.main(1000)),
    ("pools", bench_pools.main),
    ("predictors", bench_predictor.main),
    ("the digits model", bench_digits.main),
    ("proxies", bench_proxies.main),
    ("reports", bench_report.main),
    ("many workers", bench_scale.main),
):
    print(f"== {title}", flush=True)
    main()
