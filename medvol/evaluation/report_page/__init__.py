"""The report page: runs side by side in one HTML file."""
