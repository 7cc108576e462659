"""The fine solve of a noise: what a schedule of few calls should come near to."""

from s3search.processes import NoiseProcess
from s3search.schedules import published
from s3search.search.questions import FINE_NFE
from s3search.solvers.plan import Plan, compile_plan


def fine_plan(process: NoiseProcess, nfe: int = FINE_NFE) -> Plan:
    """DPM-Solver++(2M) with many calls, which ends with the clean image."""
    end = published.End(rule=published.EndRule.DENOISE)
    return compile_plan(published.dpmpp_2m(process, nfe=nfe, end=end))
