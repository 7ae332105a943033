"""The store on PostgreSQL and MariaDB: the contract, and what only a server can do."""

import databases
import pytest

from threadkeep.testing import StoreContract


class TestPostgreSQL(StoreContract):
    @pytest.fixture
    def store_url(self) -> str:
        return databases.clean_database("postgresql")


class TestMariaDB(StoreContract):
    @pytest.fixture
    def store_url(self) -> str:
        return databases.clean_database("mariadb")
