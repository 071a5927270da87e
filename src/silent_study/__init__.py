"""The reproduction: settings, data, training, store, plan, report and command line around ``silent_gradients``."""
