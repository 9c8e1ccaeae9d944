"""Python runs this at its start where ``tests.support.poison`` has put its folder on the path."""

from tests.support.poison import install

install()
