"""Our tables, in the same database as Optuna's.

Optuna's study is what people look at; these hold what it has no place for, and they are the source
of truth: a trial can be made
again from them.  All names start with ``s3search_``.  Changes go through a migration in
`migrations/versions`.
"""

from sqlalchemy import (
    Column,
    DateTime,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

METADATA = MetaData()

STUDIES = Table(
    "s3search_studies",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("config", Text, nullable=False),  # the study file as JSON, with every default
    Column("space", Text, nullable=False),  # the resolved search space as JSON
    Column(
        "state", String(20), nullable=False
    ),  # searching, validating, done, interrupted, failed
    Column("created_at", DateTime, nullable=False),
    Column("updated_at", DateTime, nullable=False),
)

SCHEDULES = Table(
    "s3search_schedules",
    METADATA,
    Column("id", String(32), primary_key=True),  # content hash
    Column("nfe", Integer, nullable=False),
    Column("content", Text, nullable=False),  # wire format
    Column("plan_key", String(32)),  # equal where plans are equal; null in rows of before 0006
)

PROPOSALS = Table(
    "s3search_proposals",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey(STUDIES.c.id), nullable=False, index=True),
    Column("number", Integer, nullable=False),
    Column("schedule_id", ForeignKey(SCHEDULES.c.id), nullable=False),
    Column("origin", String(200), nullable=False),
    Column("parents", Text, nullable=False),  # JSON list of schedule ids
    Column("created_at", DateTime, nullable=False),
    UniqueConstraint("study_id", "number"),
)

EVALUATIONS = Table(
    "s3search_evaluations",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey(STUDIES.c.id), nullable=False, index=True),
    Column("schedule_id", ForeignKey(SCHEDULES.c.id), nullable=False),
    Column("rung", String(20), nullable=False),
    Column("n_images", Integer, nullable=False),
    Column(
        "noise_seed", String(24), nullable=False
    ),  # up to 2^63, beyond SQLite's signed integers
    Column("state", String(10), nullable=False),  # complete, failed
    Column("value", Float),
    Column("standard_error", Float),
    Column("block_images", Integer),
    Column("block_value", Float),
    Column("error", Text),
    Column("metric", String(40)),
    Column("extractor", String(200)),
    Column("nfe", Integer, nullable=False),
    Column("network_batches", Integer),  # batched network calls per image
    Column("network_calls", Integer),  # image-calls spent: the cost ledger sums this and seconds
    Column("seconds", Float, nullable=False),
    Column("sampling_seconds", Float),
    Column("device", String(40)),
    Column("worker", String(200), nullable=False),
    Column("code_version", String(40)),
    Column("reference_digest", String(40)),
    Column("reference_n", Integer),
    Column("model_fingerprint", String(40)),
    Column("path", Text),  # JSON: [images, value] at the thresholds of early stopping
    Column("replicates", Text),  # JSON: paired replicates of a validated value
    Column("guards", Text),  # JSON: the value of each guard; null without guards
    Column("created_at", DateTime, nullable=False),
    UniqueConstraint("study_id", "schedule_id", "rung", "n_images", "noise_seed"),
)

JOBS = Table(
    "s3search_jobs",  # what workers were asked beside evaluations: proxies' scores, polishing
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey(STUDIES.c.id), nullable=False, index=True),
    Column("kind", String(40), nullable=False),  # "gaussian", "mixture", "trajectory", "polish"
    Column("digest", String(40), nullable=False),  # of the question: asked again, answered here
    Column("state", String(10), nullable=False),  # complete, failed
    Column("result", Text, nullable=False),  # JSON
    Column("network_calls", Integer, nullable=False),  # image-calls, forward and backward
    Column("seconds", Float, nullable=False),
    Column("worker", String(200), nullable=False),
    Column("created_at", DateTime, nullable=False),
    UniqueConstraint("study_id", "digest"),
)

NOTES = Table(
    "s3search_notes",  # what the search learned about itself: calibration of proxies and predictor
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey(STUDIES.c.id), nullable=False, index=True),
    Column("kind", String(40), nullable=False),
    Column("digest", String(40), nullable=False),
    Column("content", Text, nullable=False),  # JSON
    Column("created_at", DateTime, nullable=False),
    UniqueConstraint("study_id", "digest"),
)

EXTENSIONS = Table(
    "s3search_extensions",  # where a study went on in a wider space
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey(STUDIES.c.id), nullable=False, index=True),
    Column("version", Integer, nullable=False),  # of the space; the first has no row
    Column("nfe", Text, nullable=False),  # JSON list: what is searched from here on
    Column("first_number", Integer, nullable=False),  # of the proposals of this version
    Column("spent", Float, nullable=False),  # of the budget before, in evaluations
    Column("warm", Text, nullable=False),  # JSON: schedules to begin with, by origin
    Column("space_before", Text, nullable=False),  # JSON: the resolved space until here
    Column("created_at", DateTime, nullable=False),
    UniqueConstraint("study_id", "version"),
)

LEASES = Table(
    "s3search_leases",  # who drives a study, while someone does
    METADATA,
    Column("study_id", ForeignKey(STUDIES.c.id), primary_key=True),
    Column("owner", String(32), nullable=False),  # a random token of the driver
    Column("host", String(200), nullable=False),
    Column("machine", String(32), nullable=False),  # digest: host, boot and process namespace
    Column("pid", Integer, nullable=False),
    Column("process_start", String(40), nullable=False),  # tells a reused pid; "" where unknown
    Column("started_at", DateTime, nullable=False),  # both by the database's clock
    Column("renewed_at", DateTime, nullable=False),
)
