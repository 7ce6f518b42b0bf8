"""Sources: where a project's files come from."""
