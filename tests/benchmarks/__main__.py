"""All benchmarks: ``python -m tests.benchmarks`` (`make bench`)."""

from tests.benchmarks import (
    bench_compile,
    bench_digits,
    bench_driver,
    bench_pools,
    bench_predictor,
    bench_prefixes,
    bench_proxies,
    bench_report,
    bench_sampling,
    bench_scale,
    bench_throughput,
)

for title, main in (
    ("sampling", bench_sampling.main),
    ("compiling", lambda: bench_compile.main(1000)),
    ("pools", bench_pools.main),
    ("throughput", bench_throughput.main),
    ("shared beginnings", bench_prefixes.main),
    ("the driver", bench_driver.main),
    ("predictors", bench_predictor.main),
    ("the digits model", bench_digits.main),
    ("proxies", bench_proxies.main),
    ("reports", bench_report.main),
    ("many workers", bench_scale.main),
):
    print(f"== {title}", flush=True)
    main()
