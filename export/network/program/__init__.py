"""``torch.export`` programs from others: read field by field against allow-lists and written anew before torch sees them."""
