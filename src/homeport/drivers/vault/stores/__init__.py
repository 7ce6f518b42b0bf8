"""Outside secret stores: one small driver each."""
