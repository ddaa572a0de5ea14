"""Table 1 of the paper, computed: what LTX-Video and the models beside it are made of, and what a step of each costs.

architectures.py   the six networks: their published settings, with sources, and how they are built
table.py           numbers of a network on the meta device, and the table
measure.py         seconds for one block on this machine
"""
