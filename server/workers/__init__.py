"""Processes beside the API that block and do nothing else."""
