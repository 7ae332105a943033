"""Where sessions are kept: one store over SQLAlchemy Core, for SQLite, PostgreSQL and MariaDB."""
