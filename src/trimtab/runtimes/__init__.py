"""Engines that run a variant, one file each, and the worker process that holds one."""
