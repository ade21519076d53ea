"""Kinds of tasks, one folder each: fields, decoding, words and drawing. The modules beside them hold what several kinds share."""
