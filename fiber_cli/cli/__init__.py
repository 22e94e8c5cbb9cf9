"""The `fiber` command."""
