"""What sharing a backbone saves on this machine: one shared pass against separate models, measured in turn."""
