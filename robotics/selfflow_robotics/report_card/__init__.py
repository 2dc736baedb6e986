"""The report card of a world model: what it predicts, whether actions act in it, and whether it ranks policies rightly."""

from .card import CardSettings, make_card, save_card, view_of
from .films import Imagining
from .page import write_page
from .ranking import mmrv, pearson_interval, spearman_interval
from .table import as_text

__all__ = [
    "CardSettings",
    "Imagining",
    "as_text",
    "make_card",
    "mmrv",
    "pearson_interval",
    "save_card",
    "spearman_interval",
    "view_of",
    "write_page",
]
