"""How fast hotplumb is: ratios to the same work done by a hand-written loop, taken side by side in one run.

    python -m benchmarks                      every question, in short form: less than five minutes
    python -m benchmarks chain broadcast      these only
    python -m benchmarks --full               more rounds, more items: a quarter of an hour
    python -m benchmarks --json FILE          writes the results too, with a description of the machine
    python -m benchmarks.compare OLD NEW      names what got slower between two such files
    python -m benchmarks.page FILE            the page of results in docs/
    python -m benchmarks.work                 writes down how much work is done for fixed tasks, counted and not timed

questions/      one file a question: the user functions, what is measured, and its budget
contestants/    one file a library: one function a question, named like it; a new library is a new file and a line there
measuring       interleaved rounds, each answer checked          results   figures, tables, budgets, JSON
fresh           measuring in a process of its own                machine   what it ran on
"""
