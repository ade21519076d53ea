"""Boxes with labels from COCO's JSON: mean average precision of each precision, and what it loses."""
