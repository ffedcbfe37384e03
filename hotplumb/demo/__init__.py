"""`hotplumb demo`: a live view of this machine, and an example of a whole program that uses hotplumb.

    counters   what the machine says, asked by psutil
    graph      the topology: what is read, rolled up and paired; and how it is changed while it runs
    lines      where the values end: JSON, for programs
    table      or a table in the terminal, for people; needs rich
    painting   one picture over the other, for the table; needs rich
    keyboard   single keys from that terminal
    tally      counts, from what was shown, whether changes have lost, doubled or mixed anything
    running    one run from its first sample to its last line, whatever changes or ends it

Importing this package needs neither psutil nor rich, which the extra `hotplumb[demo]` brings.
"""
