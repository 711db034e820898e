"""The xDS protocol as pure machines: requests and content in, responses out; no socket, no clock, no chance.

:mod:`~xds.protocol.events` is what goes in and comes out, :mod:`~xds.protocol.sotw` and :mod:`~xds.protocol.delta`
are the two variants of a stream, :mod:`~xds.protocol.stream` is what they share, :mod:`~xds.protocol.subscription` is
one type on one stream, :mod:`~xds.protocol.ordering` says what must wait for what, :mod:`~xds.protocol.leases` says
what may be leased, :mod:`~xds.protocol.holdings` keeps it alive, and :mod:`~xds.protocol.responses` encodes a
response once for all streams.
"""
