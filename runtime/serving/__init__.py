"""Other engines around the runtime: what their workers share. Nothing of it is imported unless it is asked for."""
