"""Answers a shell that completes a command line, with argcomplete (packaging/completions asks)."""

from __future__ import annotations

from argparse import ArgumentParser

from netmonctl.arguments import before_cursor


def answer(parser: ArgumentParser) -> None:
    """Ends the process once the shell has its answer; returns if argcomplete is not installed."""
    try:
        import argcomplete
    except ImportError:
        return

    class Finder(argcomplete.CompletionFinder):  # type: ignore[misc]
        """argcomplete for a command line with its options anywhere."""

        def _get_completions(
            self,
            comp_words: list[str],
            cword_prefix: str,
            cword_prequote: str,
            last_wordbreak_pos: int | None,
        ) -> list[str]:
            # Of "--option=value" argcomplete has put the option before the cursor.
            kept = 1 if cword_prefix.startswith("-") and "=" in cword_prefix else 0
            typed, option = comp_words[1 : len(comp_words) - kept], comp_words[len(comp_words) - kept :]
            words = [comp_words[0], *before_cursor(typed), *option]
            found: list[str] = super()._get_completions(
                words, cword_prefix, cword_prequote, last_wordbreak_pos
            )
            return found

    Finder()(parser, always_complete_options=False, default_completer=None)
