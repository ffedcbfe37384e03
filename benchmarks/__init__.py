"""How fast hotplumb is: ratios to the same work done by a hand-written loop, taken side by side in one run.

    python -m benchmarks                   every question, in short form: about three minutes
    python -m benchmarks chain broadcast   these only
    python -m benchmarks --full            more rounds, more items
    python -m benchmarks --json FILE       writes the results too, with a description of the machine

questions/      one file a question: the user functions, what is measured, and what DESIGN.md allows it to be
contestants/    one file a library: one function a question, named like it; a new library is a new file and a line there
measuring       interleaved rounds, each answer checked          results   figures, tables, JSON
fresh           measuring in a process of its own                machine   what it ran on
"""
