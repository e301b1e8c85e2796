"""The command line: one module a verb, no torch before a command runs."""

from sae_translate.cli.main import main

__all__ = ["main"]
