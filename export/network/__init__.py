"""Reading what a training run left behind: checkpoints, factories and task files; what a network takes and returns."""
