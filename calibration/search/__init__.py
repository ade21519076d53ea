"""Which layers must stay in higher precision so that every task keeps its budget, and how sure that is."""
