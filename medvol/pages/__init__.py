"""Pages: self-contained HTML files made of plain data, with everything that they show inside."""
