"""``torch.export`` programs from others: checked field by field against allow-lists, and rewritten before torch sees them."""
