"""Where the time goes: backbone and heads, by profile and by whole calls."""
