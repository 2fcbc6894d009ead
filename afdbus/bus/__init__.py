"""The bus itself, in plain synchronous Python: no socket, no clock, no task.

Between two awaits of the loop the bus is alone, so a message is routed wholly or not at all and
every receiver sees one order.  The router says where, delivery says whether, the outbox says when.
"""
