"""`python -m sae_translate.cli`: the same as `sae-translate`."""

from sae_translate.cli.main import main

main()
