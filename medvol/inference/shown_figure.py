"""A figure that a notebook shows by itself, whether or not pyplot was imported."""

from __future__ import annotations

from io import BytesIO

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A figure of matplotlib that is a picture where it is the last value of a cell."""

    def _repr_png_(self) -> bytes:
        stream = BytesIO()
        self.savefig(stream, format="png", facecolor=self.get_facecolor())
        return stream.getvalue()
