"""The Optuna study that mirrors ours, for every tool that reads one."""
