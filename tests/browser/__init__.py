"""Our pages, the report and Optuna's pages as people meet them: in a browser."""
