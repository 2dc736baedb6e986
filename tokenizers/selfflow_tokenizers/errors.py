"""The one exception that stands for a user's mistake."""


class UserError(ValueError):
    """Bad input, said in one sentence: what was wrong, where, and what to do.

    The command line prints the sentence and exits with code 2; library code may catch it as a
    ``ValueError``. Anything else that escapes is a bug of ours and keeps its traceback.
    """
