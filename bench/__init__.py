"""What sharing a backbone buys on this machine: one shared pass against separate models, measured in turn."""
