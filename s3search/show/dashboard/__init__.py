"""Optuna dashboard on a study database, behind a guard: who may look, and who may change."""

from s3search.show.dashboard.guard import Access
from s3search.show.dashboard.logins import Login
from s3search.show.dashboard.server import Address, application, serve

__all__ = ["Access", "Address", "Login", "application", "serve"]
