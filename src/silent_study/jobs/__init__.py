"""The job of one pack: a device, its runs in training, their evaluations."""
