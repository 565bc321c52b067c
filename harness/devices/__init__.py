"""Machines side by side: names and prices, which export is fast on which, what to ship."""
