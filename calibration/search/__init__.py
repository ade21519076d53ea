"""Which layers must stay in higher precision so that every task stays within its budget, and how certain that is."""
