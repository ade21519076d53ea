"""What tasks need of their kinds: the registry, the fields of a task, and fields that only one kind has."""
