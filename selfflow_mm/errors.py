"""The exception for a user's mistake, shared by all three packages."""

from selfflow_tokenizers.errors import UserError

__all__ = ["UserError"]
