"""Only its place matters: the real pictures lie beside it."""
