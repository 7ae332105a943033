"""Alembic's migrations of threadkeep's tables, under a version table of their own."""
