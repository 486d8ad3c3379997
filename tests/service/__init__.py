"""The whole service on real parts, and what it does when they are harmed."""

import pytest

pytest.register_assert_rewrite("tests.service.stage")  # its assertions say what they saw
