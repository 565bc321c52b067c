"""Results of many revisions of one machine as a time line: steps, drift, or nothing but noise."""
