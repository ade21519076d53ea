"""The kind ``ordinal``: probabilities of passing each threshold in the graph, judged by the logits behind them."""
