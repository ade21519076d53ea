"""Reading what a training run left: checkpoints, factories, task files, and what the network returns."""
