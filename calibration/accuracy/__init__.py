"""What every task is worth at every precision: metrics, paired differences and their intervals."""
