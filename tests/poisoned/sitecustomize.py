"""Python runs this at its start where ``tests.poison`` has put its folder on the path."""

from tests.poison import install

install()
