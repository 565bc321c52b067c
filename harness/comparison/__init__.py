"""Two sets of records held against each other: what is faster, what lost accuracy, and how sure.

`sides` finds the records, `pairs` puts rows that measure the same thing beside each other, `deltas`
judges each pair, `gates` holds the verdicts against limits, `render` says it all.
"""
