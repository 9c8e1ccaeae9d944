"""What a job and an archive amount to, for people: pages, charts, sheets.

In: an archive, or a job's totals. Out: HTML, SVG, PNG and JSON.
"""
