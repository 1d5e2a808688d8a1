"""Asking: a volume's slices are drawn once, and every question about it is a prompt behind them."""

from __future__ import annotations

from medvol.core.errors import QueryError
from medvol.core.prompts import Prompt, PromptTemplate
from medvol.core.types import Evidence, Volume
from medvol.core.visible_text import is_blank
from medvol.imaging.slices import draw_slices, shown_slices


def build_prompt(volume: Volume, query: str, template: PromptTemplate, truth: Evidence | None = None) -> Prompt:
    """Draw a volume's slices and ask one question about it.

    Raises:
        QueryError: The query is empty or is no text.
    """
    return build_prompts(volume, [query], template, [truth])[0]


def build_prompts(
    volume: Volume,
    queries: list[str],
    template: PromptTemplate,
    truths: list[Evidence | None] | None = None,
    needs_volume: bool = False,
) -> list[Prompt]:
    """Ask several questions about one volume; the prompts share one drawing of its slices.

    Args:
        volume: The scan.
        queries: What is asked about it.
        template: Layout of the prompts.
        truths: True anchor of each query, for a policy that ``needs_truth``.
        needs_volume: The prompts carry the scan, for a policy that ``needs_volume``.

    Raises:
        QueryError: A query is empty or is no text.
    """
    for query in queries:
        require_query(query)
    indices = shown_slices(volume, template.num_slices)
    slices = draw_slices(volume, indices, template.windows, template.height_px, template.width_px)
    return [
        Prompt(slices, query.strip(), template, truth, volume if needs_volume else None)
        for query, truth in zip(queries, truths or [None] * len(queries), strict=True)
    ]


def require_query(query: str) -> None:
    """Refuse what cannot be asked.

    Raises:
        QueryError: The query is empty or holds nothing that can be seen, or holds bytes that are no text.
    """
    if not isinstance(query, str):
        raise QueryError(f"the query {query!r:.80} is no text; give one")
    try:
        query.encode()
    except UnicodeEncodeError as error:
        raise QueryError(f"the query {query!r} is no text at letter {error.start + 1}; write it in UTF-8") from None
    if is_blank(query):
        raise QueryError('the query is empty; describe the target in words, for example "the spleen"')
