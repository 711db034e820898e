"""The xDS protocol as pure machines: requests and content in, responses out; no socket, no clock, no chance.

:mod:`~xds.protocol.events` is what goes in and comes out, :mod:`~xds.protocol.sotw` and
:mod:`~xds.protocol.delta` are the two variants of a stream, :mod:`~xds.protocol.stream` is what they share,
:mod:`~xds.protocol.subscription` is one type on one stream (:mod:`~xds.protocol.virtual_hosts` the one that is asked
for on demand, :mod:`~xds.protocol.collections` what an xdstp glob stands for, :mod:`~xds.protocol.held` what the
client has), :mod:`~xds.protocol.ordering` says what must wait for what, :mod:`~xds.protocol.quarantine` what a node
will not have, :mod:`~xds.protocol.leases` and :mod:`~xds.protocol.holdings` keep alive what has a TTL,
:mod:`~xds.protocol.responses` encodes a response once for all streams, and :mod:`~xds.protocol.states` and
:mod:`~xds.protocol.inventory` tell people where everything stands.
"""
