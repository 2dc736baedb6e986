"""What the columns of a data set mean: layouts, as small files that a user can write for data of their own."""

from .choose import choose_layout, named_layouts
from .layout import Layout, Part, Range

__all__ = ["Layout", "Part", "Range", "choose_layout", "named_layouts"]
