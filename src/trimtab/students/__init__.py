"""Light classifiers that are known to be good for their cost, to be trained in the place of a heavy one."""
