"""From a scan and a query to files: the segmenter, batches, evidence records, pictures."""
