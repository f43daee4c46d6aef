"""RDMA: what its devices count, and whose queue pairs they are.

Hardware moves its packets past the network stack, so no program of ours sees them; only the device's own
counters tell, and for soft-RoCE the wire (roce.py).
"""
