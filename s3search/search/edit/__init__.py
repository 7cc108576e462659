"""How a schedule is drawn, changed, crossed, extended: pure, with a generator passed in."""
