"""testbed: a containerized multi-host network testbed.

Nothing heavy is imported here: hosts and agents load this package with the standard library alone.
"""

__version__ = "0.1.0"
