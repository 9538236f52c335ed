"""Reports: plain functions from a result or a comparison to words, tables, figures and one HTML file."""
