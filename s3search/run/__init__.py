"""From a study file to a finished study: what `launch` and `demo` run."""
