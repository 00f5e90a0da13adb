"""Records as one page for people: HTML in a single file, or Markdown."""
